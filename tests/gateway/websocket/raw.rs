//! A client that writes valid or invalid bytes and describes the answers in words.

use crate::harness::DEADLINE;
use serde_json::Value;
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Encoding of a payload's length.
#[derive(Clone, Copy)]
pub enum Length {
    Shortest,
    In16Bits,
    In64Bits,
}

/// One client frame; `first` is its first byte: FIN, reserved bits, opcode.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_with(first, Length::Shortest, Some(MASK), payload.as_ref())
}

pub fn frame_with(first: u8, length: Length, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, length, mask, payload.len() as u64);
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The head of a frame; `announced` may exceed the length of the payload.
pub fn head(first: u8, length: Length, mask: Option<[u8; 4]>, announced: u64) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (length, announced) {
        (Length::Shortest, 0..=125) => bytes.push(masked | announced as u8),
        (Length::Shortest, 126..=0xffff) | (Length::In16Bits, _) => {
            bytes.push(masked | 126);
            bytes.extend((announced as u16).to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend(announced.to_be_bytes());
        }
    }
    bytes.extend(mask.into_iter().flatten());
    bytes
}

pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

pub struct Raw {
    stream: TcpStream,
    /// Received bytes that are not parsed yet.
    unread: Vec<u8>,
}

/// The answer to a handshake, valid or not.
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Raw {
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway accepts");
        stream.set_nodelay(true).expect("an option of TCP");
        Self { stream, unread: Vec::new() }
    }

    /// Sends bytes in one write. The write may fail after a close by the gateway; the test looks at the close
    /// instead.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("the gateway reads in time");
    }

    /// Closes the sending side; reading continues.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads the head of an HTTP answer; status 0 if the connection ends without an answer.
    pub async fn answer(&mut self) -> Answer {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 4);
                let mut lines = head.lines();
                let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
                let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
                return Answer { status: status.expect("a status line"), headers: lines.filter_map(header).collect() };
            }
            if self.read().await.is_err() {
                return Answer { status: 0, headers: Vec::new() };
            }
        }
    }

    /// The received frames in words, up to the reply with this id or the end of the connection.
    pub async fn seen_until(&mut self, id: u64) -> String {
        let last = format!("reply {id}");
        let mut seen = Vec::new();
        while let Some(word) = self.next().await {
            let ends = word == "end" || word == "reset" || word == last;
            if word != last {
                seen.push(word);
            }
            if ends {
                break;
            }
        }
        if seen.is_empty() { "goes on".to_owned() } else { seen.join(", ") }
    }

    /// The next frame in words.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((opcode, payload)) = self.take_frame() {
                return Some(in_words(opcode, &payload));
            }
            if let Err(end) = self.read().await {
                return Some(end.to_owned());
            }
        }
    }

    /// A whole frame from the gateway, which sends unmasked frames.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (&[first, second], rest) = self.unread.split_first_chunk::<2>()?;
        let (length, head) = match second {
            126 => (u16::from_be_bytes(*rest.first_chunk()?) as usize, 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
            _ => (usize::from(second), 2),
        };
        let payload = self.unread.get(head..head + length)?.to_vec();
        self.unread.drain(..head + length);
        assert!(second < 0x80, "a masked frame from the gateway");
        assert_eq!(first & 0xf0, FIN, "whole frames without reserved bits");
        Some((first & 0x0f, payload))
    }

    async fn read(&mut self) -> Result<(), &'static str> {
        let mut chunk = [0; 4096];
        match timeout(DEADLINE, self.stream.read(&mut chunk)).await.expect("something comes in time") {
            Ok(0) => Err("end"),
            Ok(count) => {
                self.unread.extend(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err("reset"),
            Err(error) => panic!("reading: {error}"),
        }
    }
}

fn in_words(opcode: u8, payload: &[u8]) -> String {
    match opcode {
        TEXT => match serde_json::from_slice::<Value>(payload).expect("a frame is JSON")["id"].as_u64() {
            Some(id) => format!("reply {id}"),
            None => "push".to_owned(),
        },
        PONG if payload.len() > 20 => format!("pong of {} bytes", payload.len()),
        PONG => format!("pong {:?}", String::from_utf8_lossy(payload)),
        CLOSE => match payload.split_first_chunk::<2>() {
            Some((code, _)) => format!("close {}", u16::from_be_bytes(*code)),
            None => "close without a code".to_owned(),
        },
        _ => format!("opcode {opcode}"),
    }
}
