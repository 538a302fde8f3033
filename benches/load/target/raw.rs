//! The upper bound, in a process of its own.

use super::peer::local;
use super::{Audience, Cores, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::raw::Raw;
use crate::harness::process::free_port;
use crate::publish::{Lane, Message};
use crate::raw_server::{PUBLISH, READY};
use crate::usage::Watched;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

pub fn start(arguments: &[&str], audience: Audience, cores: &Cores) -> Server {
    let address = local(free_port());
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["serve-raw", &address.port().to_string()]).args(arguments);
    let process = peer::start("raw", &mut command, address, cores);
    let tickets = audience.tickets(|_, room| Ticket { room, ..Ticket::default() });
    Server {
        watched: Watched::alone(process.pid()),
        address,
        dialect: Arc::new(Raw),
        tickets,
        lanes: lanes(|| RawLane { address, stream: None }),
        calls: None,
        _running: Box::new(process),
    }
}

struct RawLane {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Lane for RawLane {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.write_all(&[PUBLISH])?;
                none.insert(stream)
            }
        };
        for message in messages {
            let mut payload = Vec::new();
            message.json(&mut payload);
            // The prepared frame: a WebSocket text frame.
            let head: Vec<u8> = match payload.len() {
                0..126 => vec![0x81, payload.len() as u8],
                length @ 126..=0xffff => [&[0x81, 126], &(length as u16).to_be_bytes()[..]].concat(),
                length => [&[0x81, 127], &(length as u64).to_be_bytes()[..]].concat(),
            };
            let length = (head.len() + payload.len()) as u32;
            let call = [&message.room.to_le_bytes()[..], &length.to_le_bytes(), &head, &payload].concat();
            stream.write_all(&call)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            if answer != [READY] {
                return Err(Error::from(ErrorKind::InvalidData));
            }
        }
        Ok(())
    }
}
