//! The raw server has no protocol: the client names a room in five bytes, the server answers with one byte.

use super::{Dialect, Place, Step, Ticket};
use crate::raw_server::{READY, SUBSCRIBE};

pub struct Raw;

impl Dialect for Raw {
    fn hello(&self, ticket: &Ticket) -> Vec<u8> {
        let mut hello = vec![SUBSCRIBE];
        hello.extend_from_slice(&ticket.room.to_le_bytes());
        hello
    }

    fn advance(&self, _: &Ticket, _: u32, received: &[u8], _: &mut Place) -> Result<Step, String> {
        match received.first() {
            None => Ok(Step::Wait),
            Some(&READY) => Ok(Step::Ready { used: 1, content: Vec::new() }),
            Some(other) => Err(format!("answered with {other}")),
        }
    }
}
