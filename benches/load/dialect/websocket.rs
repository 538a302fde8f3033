//! The parts of WebSocket that a set-up needs: the handshake, and reading whole frames.

use super::{Dialect, Place, Step, Ticket};

/// A client's handshake. The accept key in the server's answer is not checked, so the key is fixed.
pub fn handshake(path: &str) -> Vec<u8> {
    let key = "AAAAAAAAAAAAAAAAAAAAAA==";
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    .into_bytes()
}

/// Length in bytes of the server's answer, `None` while incomplete; an error if the answer is no upgrade.
pub fn upgraded(received: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else { return Ok(None) };
    if !received.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&received[..end]).lines().next().unwrap_or_default().to_owned());
    }
    Ok(Some(end + 4))
}

/// A client's text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A client's binary frame.
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

/// A client's frame. The mask is zero, which leaves the payload unchanged.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The server's next complete message, with its fragments joined, and the number of bytes read.
pub fn message(received: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let head = received.get(at..at + 2)?;
        let (length, begin) = match head[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*received.get(at + 2..)?.first_chunk()?)), at + 4),
            127 => (u64::from_be_bytes(*received.get(at + 2..)?.first_chunk()?) as usize, at + 10),
            short => (usize::from(short), at + 2),
        };
        at = begin + length;
        payload.extend_from_slice(received.get(begin..at)?);
        if head[0] & 0x80 != 0 {
            return Some((payload, at));
        }
    }
}

/// A plain WebSocket, whose URL names the channel and carries the proof of access.
pub struct Subscriber;

impl Dialect for Subscriber {
    fn hello(&self, ticket: &Ticket) -> Vec<u8> {
        handshake(&ticket.channel)
    }

    fn advance(&self, _: &Ticket, _: u32, received: &[u8], _: &mut Place) -> Result<Step, String> {
        Ok(upgraded(received)?.map_or(Step::Wait, |used| Step::Ready { used, content: Vec::new() }))
    }
}
