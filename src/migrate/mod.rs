//! The move of a chat from Supabase to PocketBase: export, import, verification, and the changes since an export.
//!
//! [`export`] reads the chat's key-value table, the accounts, the password hashes and the files into a [`spool`], from
//! which a [`document`] (`export.json`) is written. [`plan`] reads the document once and keeps the ids of everything
//! that rows refer to. [`passes`] turns the document's rows into rows of PocketBase's collections, in the order of the
//! [`steps`], with [`users`], [`rooms`], [`messages`] and [`extras`]; [`import`] writes these rows through the chat's
//! import routes, and [`verify`] compares these rows with PocketBase's. A delta imports the rows that have changed since
//! the export, and removes the records of rows that are [`gone`] and the [`leftovers`] of changed rows.
//!
//! Nothing is dropped silently: the [`ledger`] counts every row of the export as imported, rejected, unmapped or an
//! index (a list that other rows repeat), and every part that an imported row lost as a repair.

pub mod compare;
pub mod dates;
pub mod document;
pub mod export;
pub mod extras;
pub mod files;
pub mod filter;
pub mod gone;
pub mod hashes;
pub mod http;
pub mod ids;
pub mod import;
pub mod ledger;
pub mod leftovers;
pub mod mapping;
pub mod messages;
pub mod passes;
pub mod people;
pub mod plan;
pub mod progress;
pub mod record;
pub mod rooms;
pub mod rules;
pub mod spool;
pub mod state;
pub mod steps;
pub mod storage;
pub mod supabase;
pub mod target;
pub mod users;
pub mod verify;
