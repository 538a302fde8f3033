//! How a client of each server says hello and subscribes. Only this is understood of a protocol: after it, messages are
//! found by their mark.

pub mod centrifuge;
pub mod pusher;
pub mod raw;
pub mod socketio;
pub mod sse;
pub mod websocket;

/// Whom a connection is for.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    pub room: u32,
    pub channel: String,
    pub token: String,
}

/// Where a client stands in its channel, for when it comes back; only the gateway's clients have one.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
    /// Of the last subscribe; `None` where it did not ask.
    pub recovered: Option<bool>,
}

/// What follows from what the server has said.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// More has to arrive.
    Wait,
    /// Forget the first `used` bytes and send this.
    Send { used: usize, bytes: Vec<u8> },
    /// Forget the first `used` bytes and send this on another connection. Goes on with the next step once that has been
    /// answered with success.
    Aside { used: usize, request: Aside },
    /// The client is subscribed. `content`: what of the answer may hold messages.
    Ready { used: usize, content: Vec<u8> },
}

/// A POST of JSON.
#[derive(Debug, PartialEq)]
pub struct Aside {
    pub target: &'static str,
    /// Each with its line's end.
    pub headers: String,
    pub body: String,
}

pub trait Dialect: Send + Sync {
    /// The first bytes that a client sends.
    fn hello(&self, ticket: &Ticket) -> Vec<u8>;

    /// `step`: how many times this client has sent something since its hello.
    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], place: &mut Place) -> Result<Step, String>;

    /// How a ping of the server looks, and the answer. No message may hold these bytes.
    fn ping(&self) -> Option<(&'static [u8], Vec<u8>)> {
        None
    }

    /// How the server says that it ends a subscription, as where the client has to reload. No message may hold these
    /// bytes.
    fn farewell(&self) -> Option<&'static [u8]> {
        None
    }
}
