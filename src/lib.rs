//! konvert-gateway: a realtime WebSocket gateway beside PocketBase.
//!
//! Follow a message: PocketBase's hooks post an [`event`] to [`server`], which checks its [`signature`] and hands
//! it to the [`relay`]; the relay puts events into outbox order and publishes them through the [`broker`], which
//! numbers them per channel, keeps a bounded history, and delivers to every node's [`hub`]; the hub pushes one
//! encoded frame into the [`outbox`] of each subscriber; the [`writer`]s write what is queued to the sockets.
//!
//! Follow a client: [`server`] answers the handshake, [`socket`] reads frames from its [`stream`], [`session`] understands them as
//! commands of the [`protocol`]; [`auth`] says who it is and [`access`] what it may see, both asking
//! [`pocketbase`] (with [`tls`] where it is set, as towards Redis); a [`connection`] is what others see of it, [`presence`] keeps it visible to clients, [`status`]
//! makes its user online; [`limits`] says how much of each there may be. How access ends: [`revocation`]. How it all
//! ends: [`shutdown`]; which panics end the process: [`tasks`].
//!
//! A [`channel`]'s kind says what it carries and how it is subscribed to: numbered publications with a history, or the
//! newest state alone; or what each subscriber may see of all records of a collection, which is [`updates`]' work.
//!
//! Dependencies point one way: server → socket → session → hub → broker, relay → broker. The broker calls back
//! only through [`broker::Sink`], which the hub implements. [`protocol`], [`metrics`] and [`config`] know nothing
//! of the others, and [`limits`] only of `config`.

#![warn(clippy::unwrap_used)]

pub mod access;
pub mod auth;
pub mod broker;
pub mod channel;
pub mod config;
pub mod connection;
pub mod doctor;
pub mod event;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod outbox;
pub mod pocketbase;
pub mod presence;
pub mod protocol;
mod random;
pub mod relay;
pub mod revocation;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod signature;
pub mod socket;
pub mod status;
pub mod stream;
pub mod tasks;
pub mod tls;
mod turns;
pub mod updates;
pub mod writer;
