//! Several auth collections, superusers and guests: each user has one key everywhere, a token acts for its own record
//! alone, and guests are let in, bounded and shut out like anybody else.

mod harness;

mod accounts {
    pub mod guests;
    pub mod keys;
    pub mod stage;
}
