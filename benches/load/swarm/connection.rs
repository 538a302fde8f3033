//! One client's connection: the set-up in the server's dialect, afterwards only a search for marks.

use super::Shared;
use crate::dialect::{Aside, Dialect, Ping, Place, Step, Ticket};
use crate::mark::{LENGTH, Search, now};
use crate::tally::Tally;
use memchr::memmem::Finder;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;

/// Space in front of the read buffer for the unprocessed end of the previous read.
const CARRY: usize = LENGTH;
const BUFFER: usize = 256 * 1024;
/// Number of bytes at the end of a read to search for the end of the subscription.
const FAREWELL: usize = 256;

/// Reading state besides the connection, shared by the connections of a thread.
pub struct Reader {
    buffer: Vec<u8>,
    search: Search,
    pings: Vec<(Finder<'static>, Vec<u8>)>,
    farewell: Option<Finder<'static>>,
    pub tally: Option<Tally>,
}

pub struct Connection {
    pub stream: TcpStream,
    /// End of the last read that may belong to the next mark or ping.
    carry: [u8; CARRY],
    carried: usize,
    /// Messages since the subscription, by which the position in the channel advances.
    pub received: u64,
    /// Present until the client is subscribed.
    set_up: Option<Box<SetUp>>,
}

struct SetUp {
    begun: u64,
    greeted: bool,
    /// True while a request on another connection is unanswered.
    waits_aside: bool,
    step: u32,
    buffer: Vec<u8>,
}

/// State of a connection after an event.
pub enum Outcome {
    Open,
    /// The set-up waits for the answer to this request.
    Aside(Aside),
    /// Subscribed; nanoseconds since the set-up began.
    Subscribed(u64),
    Failed(String),
}

/// Index of the connection in its thread, and the client's room.
#[derive(Clone, Copy)]
pub struct Seat {
    pub index: usize,
    pub room: u32,
}

impl Reader {
    pub fn new(dialect: &dyn Dialect) -> Self {
        let pings = dialect.pings().into_iter().map(|Ping { ping, pong }| (Finder::new(ping), pong)).collect();
        let farewell = dialect.farewell().map(Finder::new);
        Self { buffer: vec![0; CARRY + BUFFER], search: Search::new(), pings, farewell, tally: None }
    }
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        let set_up = SetUp { begun: now(), greeted: false, waits_aside: false, step: 0, buffer: Vec::new() };
        Self { stream, carry: [0; CARRY], carried: 0, received: 0, set_up: Some(Box::new(set_up)) }
    }

    pub fn is_subscribed(&self) -> bool {
        self.set_up.is_none()
    }

    /// Lets the set-up continue after the answer to its request.
    pub fn answered_aside(&mut self) {
        if let Some(set_up) = &mut self.set_up {
            set_up.waits_aside = false;
        }
    }

    /// Reads the available bytes and looks for marks.
    pub fn read(&mut self, seat: Seat, reader: &mut Reader, shared: &Shared) -> Outcome {
        loop {
            match self.stream.read(&mut reader.buffer[CARRY..]) {
                Ok(0) => return Outcome::Failed("closed by the server".to_owned()),
                Ok(count) => {
                    if let Err(reason) = self.take(count, seat, reader, shared) {
                        return Outcome::Failed(reason);
                    }
                    // A partial read means that the socket is empty; epoll reports what arrives next.
                    if count < BUFFER {
                        return Outcome::Open;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Open,
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
    }

    /// Processes the `count` new bytes in the buffer.
    fn take(&mut self, count: usize, seat: Seat, reader: &mut Reader, shared: &Shared) -> Result<(), String> {
        let Reader { buffer, search, pings, farewell, tally } = reader;
        let begin = CARRY - self.carried;
        buffer[begin..CARRY].copy_from_slice(&self.carry[..self.carried]);
        let bytes = &buffer[begin..CARRY + count];
        let (at, received, mut arrived) = (now(), self.received, 0);
        let rest = search.each(bytes, |mark| {
            self.received += 1;
            if tally.as_mut().is_some_and(|tally| tally.take(seat.index, seat.room, mark, at)) {
                arrived += 1;
            }
        });
        shared.seen.fetch_add(self.received - received, Ordering::Relaxed);
        if arrived > 0 {
            shared.arrived.fetch_add(arrived, Ordering::Relaxed);
        }
        // Only pings follow the end of a subscription.
        let last = &bytes[bytes.len().saturating_sub(FAREWELL)..];
        if let Some(at) = farewell.as_ref().and_then(|farewell| farewell.find(last)) {
            return Err(String::from_utf8_lossy(&last[at..]).into_owned());
        }
        let mut carried_from = rest;
        for (ping, pong) in pings {
            // Pings that end within the carried bytes have been answered before.
            let length = ping.needle().len();
            let count = ping.find_iter(bytes).filter(|at| at + length > self.carried).count();
            for _ in 0..count {
                write(&self.stream, pong)?;
            }
            // Half a ping at the end is carried, even where no mark can begin.
            carried_from = carried_from.min(bytes.len().saturating_sub(length - 1));
        }
        self.keep(&bytes[carried_from.max(bytes.len().saturating_sub(CARRY))..]);
        Ok(())
    }

    fn keep(&mut self, rest: &[u8]) {
        self.carried = rest.len();
        self.carry[..rest.len()].copy_from_slice(rest);
    }

    /// Continues the set-up as far as the received bytes allow.
    pub fn set_up(
        &mut self,
        seat: Seat,
        (dialect, ticket, place): (&dyn Dialect, &Ticket, &mut Place),
        reader: &mut Reader,
        shared: &Shared,
    ) -> Outcome {
        match self.try_set_up(seat, (dialect, ticket, place), reader, shared) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Failed(reason),
        }
    }

    fn try_set_up(
        &mut self,
        seat: Seat,
        (dialect, ticket, place): (&dyn Dialect, &Ticket, &mut Place),
        reader: &mut Reader,
        shared: &Shared,
    ) -> Result<Outcome, String> {
        let Some(set_up) = &mut self.set_up else { return Ok(Outcome::Open) };
        if !set_up.greeted {
            if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
                return Err(error.to_string());
            }
            if self.stream.peer_addr().is_err() {
                return Ok(Outcome::Open);
            }
            set_up.greeted = true;
            write(&self.stream, &dialect.hello(ticket))?;
        }
        loop {
            match self.stream.read(&mut reader.buffer) {
                Ok(0) => return Err("closed by the server during its set-up".to_owned()),
                Ok(count) => {
                    set_up.buffer.extend_from_slice(&reader.buffer[..count]);
                    if count < reader.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        if set_up.waits_aside {
            return Ok(Outcome::Open);
        }
        loop {
            match dialect.advance(ticket, set_up.step, &set_up.buffer, place)? {
                Step::Wait => return Ok(Outcome::Open),
                Step::Send { used, bytes } => {
                    set_up.buffer.drain(..used);
                    set_up.step += 1;
                    write(&self.stream, &bytes)?;
                }
                Step::Aside { used, request } => {
                    set_up.buffer.drain(..used);
                    set_up.step += 1;
                    set_up.waits_aside = true;
                    return Ok(Outcome::Aside(request));
                }
                Step::Ready { used, content } => {
                    let took = now() - set_up.begun;
                    let live = set_up.buffer.split_off(used);
                    self.set_up = None;
                    // The answer holds the missed messages, already counted in its offset.
                    self.look_at(&content, seat, reader, shared)?;
                    (self.received, self.carried) = (0, 0);
                    self.look_at(&live, seat, reader, shared)?;
                    return Ok(Outcome::Subscribed(took));
                }
            }
        }
    }

    fn look_at(&mut self, bytes: &[u8], seat: Seat, reader: &mut Reader, shared: &Shared) -> Result<(), String> {
        for piece in bytes.chunks(BUFFER) {
            reader.buffer[CARRY..CARRY + piece.len()].copy_from_slice(piece);
            self.take(piece.len(), seat, reader, shared)?;
        }
        Ok(())
    }
}

/// Writes a client's bytes, so few that the socket always has room.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), String> {
    match stream.write(bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err("the server does not read".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
