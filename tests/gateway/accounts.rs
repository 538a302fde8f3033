//! Several auth collections, superusers and guests: one key per user, tokens bound to their record, and the rules and
//! limits for guests.

mod guests;
mod ids;
mod keys;
mod stage;
