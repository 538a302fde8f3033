//! The move of a chat from Supabase to PocketBase: export, import, verification, and the changes since an export.
//!
//! [`export`] reads the chat's key-value table, the accounts, the password hashes and the files into a [`spool`], from
//! which a [`document`] (`export.json`) is written. [`plan`] reads the document once and keeps the ids of everything
//! that rows refer to. [`passes`] turns the document's rows into rows of PocketBase's collections, with [`people`],
//! [`rooms`], [`messages`] and [`extras`]; [`import`] writes these rows through the chat's import routes, and
//! [`verify`] compares these rows with PocketBase's.
//!
//! Nothing is dropped silently: the [`ledger`] counts every row of the export as imported, rejected, unmapped or an
//! index (a list that other rows repeat), and every part that an imported row lost as a repair.

pub mod dates;
pub mod document;
pub mod export;
pub mod extras;
pub mod files;
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
pub mod storage;
pub mod supabase;
pub mod target;
pub mod verify;
