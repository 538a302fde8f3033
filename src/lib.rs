//! konvert-gateway: a realtime WebSocket gateway beside PocketBase.
//!
//! The path of a message: PocketBase's hooks post an [`event`] to the [`server`], which checks the [`signature`] and
//! passes the event to the [`relay`]. The relay puts events into outbox order and publishes them through the
//! [`broker`], which numbers them per channel, keeps a bounded history, and delivers to every node's [`hub`]. The hub
//! pushes one encoded frame into the [`outbox`] of each subscriber, and the outboxes' [`outbox::writer`]s write queued
//! frames to the sockets.
//!
//! The path of a client: the [`server`] answers the handshake, the [`socket`] reads frames from its [`stream`], and
//! the [`session`] handles them as commands of the [`protocol`]. Where WebSockets are blocked, an HTTP response without
//! end takes the socket's place, and the commands, posted to any gateway, wait in the session's [inbox](inboxes). [`auth`] identifies the user and [`access`] decides
//! what the user may view; both ask [`pocketbase`]. [`tls`] encrypts the links to PocketBase and Redis where
//! configured. A [`connection`] is the view that other modules have of a session. [`members`] show the connection
//! to other clients (presence) and make the user online (status). [`limits`] counts, and two files decide by the
//! counts: `session/limits.rs` about a user's commands, reads, signals, subscriptions and connections, and
//! `server/admission.rs` about the sockets of an address. `server/gateway.rs` builds all parts, and chooses the broker.
//! [`shutdown`] ends the process gracefully, and [`tasks`] says how parts start their background tasks, and which
//! panics end the process. `log_lines` limits the lines of the log. `backoff` grows the pauses between retries within bounds that each caller chooses.
//!
//! The path of an access change: an [`event`] carries the change, whose cause (`event/cause.rs`) decides the code and
//! reason for clients; [`protocol::codes`] lists all codes. The relay publishes the change on the gateways' own
//! channel, and [`control`] passes it to [`revocation`], which ends access, and to [`updates`]. Back ends' orders take
//! the same channel.
//!
//! The server shows [`metrics`], health and the last [`refusals`] to operators on a listener of their own.
//!
//! Beside the server: [`init`] writes PocketBase's side into a directory, [`dev`] runs both with a demo, [`doctor`]
//! checks an installation, and [`health`] asks a running gateway whether it is ready.
//!
//! A [`channel`]'s kind says what the channel carries and how clients subscribe: numbered publications with a
//! history; the newest state alone; or, in [`updates`], what each subscriber may view of all records of a collection.
//!
//! Dependencies point one way: server → socket → session → hub → broker, control → revocation → hub, relay → broker.
//! The relay encodes its messages to the gateways with [`control::message`], and pauses while the [`outbox::writer`]s
//! are late. The broker calls back only through [`broker::Sink`], implemented by the hub, and the hub only through
//! [`hub::Watcher`], implemented by `control`, and [`hub::Mailbox`], implemented by `inboxes`.
//! [`protocol`], [`metrics`] and [`config`] use no other module; [`refusals`] uses `limits`; [`limits`] uses `config`,
//! `tasks`, and two types of `outbox` and `protocol`.

#![warn(clippy::unwrap_used)]

pub mod access;
pub mod auth;
mod backoff;
pub mod broker;
pub mod channel;
pub mod config;
pub mod connection;
mod control;
pub mod dev;
pub mod doctor;
pub mod event;
pub mod health;
pub mod hex;
pub mod hub;
pub mod inboxes;
pub mod init;
pub mod limits;
mod log_lines;
pub mod members;
pub mod metrics;
pub mod outbox;
pub mod pocketbase;
pub mod protocol;
pub mod random;
pub mod refusals;
pub mod relay;
mod revocation;
pub mod server;
mod session;
mod shutdown;
pub mod signature;
mod socket;
#[cfg(test)]
mod stage;
pub mod stream;
pub mod tasks;
pub mod tls;
mod updates;
