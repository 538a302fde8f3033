//! The upper bound: a minimal tokio server that writes a prepared frame to each socket of a room and checks nothing.
//!
//! Two worker threads share the connections, with a writing task for each thread. With `coalesce`, queued frames are
//! joined into a single write per socket.

use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// First byte of a subscriber's connection; the room follows. A publisher sends [`PUBLISH`] and any number of messages:
/// room, length and payload. The server answers each message with [`READY`] once the writers have the message. Numbers
/// are 32 bits, little endian.
pub const SUBSCRIBE: u8 = b'S';
pub const PUBLISH: u8 = b'P';
pub const READY: u8 = b'+';

const SHARDS: usize = 2;
/// Interval between attempts to write to a full socket.
const RETRY: Duration = Duration::from_millis(1);
/// Largest number of bytes joined into one write.
const JOINED: usize = 64 * 1024;

enum Order {
    Join { room: u32, id: u64, stream: Arc<TcpStream> },
    Leave { room: u32, id: u64 },
    Write { room: u32, frame: Bytes },
}

struct Subscriber {
    id: u64,
    stream: Arc<TcpStream>,
    /// Bytes for which the socket had no room.
    pending: BytesMut,
}

/// Faults for the self-test, applied to each message whose number is divisible by [`EVERY`].
pub const SPOILS: [&str; 4] = ["none", "lose", "double", "swap"];
pub const EVERY: u32 = 100;
/// Number of messages that overtake a swapped message, the publisher's next messages included.
const PASSING: u32 = EVERY / 4;

/// Coalescing, and the fault to make.
#[derive(Clone, Debug)]
struct Manner {
    coalesce: bool,
    spoil: String,
}

/// Serves until the process is ended: `PORT [--coalesce] [--spoil WHAT]`.
pub fn serve(arguments: &[String]) {
    let port: u16 = arguments[0].parse().expect("a port");
    let spoil = arguments.iter().skip_while(|one| *one != "--spoil").nth(1).cloned().unwrap_or_default();
    let manner = Manner { coalesce: arguments.iter().any(|one| one == "--coalesce"), spoil };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(SHARDS).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket's option");
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("a free port");
        let listener = socket.listen(4096).expect("it listens");
        let shards: Arc<[UnboundedSender<Order>]> = (0..SHARDS)
            .map(|_| {
                let (orders, taken) = unbounded_channel();
                tokio::spawn(write_all(taken, manner.clone()));
                orders
            })
            .collect();
        tokio::spawn(accept(listener, shards)).await.expect("it goes on for ever");
    });
}

async fn accept(listener: TcpListener, shards: Arc<[UnboundedSender<Order>]>) {
    for id in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(attend(stream, id, Arc::clone(&shards)));
    }
}

/// Serves a connection to its end.
async fn attend(mut stream: TcpStream, id: u64, shards: Arc<[UnboundedSender<Order>]>) -> std::io::Result<()> {
    if stream.read_u8().await? == PUBLISH {
        let mut stream = BufReader::new(stream);
        let mut body = BytesMut::new();
        loop {
            let (room, length) = (stream.read_u32_le().await?, stream.read_u32_le().await? as usize);
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
            let frame = body.split().freeze();
            for shard in &*shards {
                let _ = shard.send(Order::Write { room, frame: frame.clone() });
            }
            stream.write_u8(READY).await?;
        }
    }
    let room = stream.read_u32_le().await?;
    stream.write_u8(READY).await?;
    let (stream, shard) = (Arc::new(stream), &shards[id as usize % SHARDS]);
    let _ = shard.send(Order::Join { room, id, stream: Arc::clone(&stream) });
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(&mut [0; 64]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    let _ = shard.send(Order::Leave { room, id });
    Ok(())
}

/// Applies the self-test's fault, if set, to the messages.
struct Spoiler {
    manner: Manner,
    count: u32,
    held: Option<(u32, Bytes)>,
}

impl Spoiler {
    fn pass(&mut self, room: u32, frame: Bytes) -> Vec<(u32, Bytes)> {
        self.count += 1;
        match self.manner.spoil.as_str() {
            "lose" if self.count.is_multiple_of(EVERY) => Vec::new(),
            "double" if self.count.is_multiple_of(EVERY) => vec![(room, frame.clone()), (room, frame)],
            "swap" if self.count % EVERY == EVERY / 2 => {
                self.held = Some((room, frame));
                Vec::new()
            }
            "swap" if self.count % EVERY == EVERY / 2 + PASSING => {
                [(room, frame)].into_iter().chain(self.held.take()).collect()
            }
            _ => vec![(room, frame)],
        }
    }
}

async fn write_all(mut orders: UnboundedReceiver<Order>, manner: Manner) {
    let limit = if manner.coalesce { 1024 } else { 1 };
    let mut spoiler =
        Some(manner).filter(|manner| !manner.spoil.is_empty()).map(|manner| Spoiler { manner, count: 0, held: None });
    let mut rooms: HashMap<u32, Vec<Subscriber>> = HashMap::new();
    let (mut taken, mut joined) = (Vec::new(), Vec::new());
    let mut full = false;
    loop {
        if full {
            // While a socket is full, every socket is tried again each millisecond.
            let _ = tokio::time::timeout(RETRY, orders.recv_many(&mut taken, limit)).await;
            full = false;
            for one in rooms.values_mut().flatten() {
                full |= one.write(&[]);
            }
        } else if orders.recv_many(&mut taken, limit).await == 0 {
            return;
        }
        for order in taken.drain(..) {
            match order {
                Order::Write { room, frame } => match &mut spoiler {
                    None => join(&mut joined, room, frame),
                    Some(spoiler) => {
                        spoiler.pass(room, frame).into_iter().for_each(|(room, frame)| join(&mut joined, room, frame));
                    }
                },
                Order::Join { room, id, stream } => {
                    rooms.entry(room).or_default().push(Subscriber { id, stream, pending: BytesMut::new() });
                }
                Order::Leave { room, id } => {
                    if let Some(subscribers) = rooms.get_mut(&room)
                        && let Some(at) = subscribers.iter().position(|one| one.id == id)
                    {
                        subscribers.swap_remove(at);
                    }
                }
            }
        }
        for (room, frames) in joined.drain(..) {
            for one in rooms.get_mut(&room).into_iter().flatten() {
                full |= one.write(&frames);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Appends the frame to a pending buffer of the same room, or starts a new buffer.
fn join(joined: &mut Vec<(u32, BytesMut)>, room: u32, frame: Bytes) {
    match joined.iter_mut().rev().find(|(one, _)| *one == room) {
        Some((_, frames)) if frames.len() < JOINED => frames.extend_from_slice(&frame),
        _ => joined.push((room, BytesMut::from(frame))),
    }
}

impl Subscriber {
    /// Returns true if unwritten bytes are left.
    fn write(&mut self, frame: &[u8]) -> bool {
        if self.pending.is_empty() {
            // Nothing is copied while the socket accepts the frame.
            let written = if frame.is_empty() { 0 } else { self.try_write(frame) };
            self.pending.extend_from_slice(&frame[written..]);
        } else {
            self.pending.extend_from_slice(frame);
            let written = self.try_write(&self.pending);
            let _ = self.pending.split_to(written);
        }
        !self.pending.is_empty()
    }

    /// On a closed socket, the bytes count as written.
    fn try_write(&self, bytes: &[u8]) -> usize {
        match self.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => bytes.len(),
        }
    }
}
