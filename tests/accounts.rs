//! Several auth collections, superusers and guests: one key per user, tokens bound to their record, and the rules and
//! limits for guests.

mod harness;

mod accounts {
    pub mod guests;
    pub mod ids;
    pub mod keys;
    pub mod stage;
}
