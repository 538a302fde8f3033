//! How a client of each server connects and subscribes. The load generator understands no more of a protocol: after the
//! subscribe, it finds messages by their mark.

pub mod centrifuge;
pub mod pusher;
pub mod raw;
pub mod socketio;
pub mod sse;
pub mod websocket;

/// The room, channel and token of one client.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    /// Number of the client, for dialects of which clients speak different variants.
    pub number: usize,
    pub room: u32,
    pub channel: String,
    pub token: String,
}

/// A client's position in its channel, for recovery after a reconnect. Only clients of the gateway and of Centrifugo have a position.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
    /// Result of the last subscribe; `None` if the client did not ask for recovery.
    pub recovered: Option<bool>,
}

/// The next step of a set-up, after the bytes received so far.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Wait for more bytes.
    Wait,
    /// Drop the first `used` bytes and send `bytes`.
    Send { used: usize, bytes: Vec<u8> },
    /// Drop the first `used` bytes and send `request` on another connection. The set-up continues with the next step
    /// after a successful answer.
    Aside { used: usize, request: Aside },
    /// The client is subscribed. `content` is the part of the answer with possible messages.
    Ready { used: usize, content: Vec<u8> },
}

/// A POST request with a JSON body.
#[derive(Debug, PartialEq)]
pub struct Aside {
    pub target: &'static str,
    /// Header lines with their line endings.
    pub headers: String,
    pub body: String,
}

/// Bytes that a server sends as a ping, and the answer.
pub struct Ping {
    pub ping: &'static [u8],
    pub pong: Vec<u8>,
}

pub trait Dialect: Send + Sync {
    /// First bytes that a client sends.
    fn hello(&self, ticket: &Ticket) -> Vec<u8>;

    /// `step` counts the client's sends since the hello.
    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], place: &mut Place) -> Result<Step, String>;

    /// The server's pings with the client's answers. No message may hold the bytes of a ping.
    fn pings(&self) -> Vec<Ping> {
        Vec::new()
    }

    /// Beginning of the frame with which the server ends a subscription, for instance when the client has to reload. No
    /// message may hold these bytes.
    fn farewell(&self) -> Option<&'static [u8]> {
        None
    }
}
