//! A client's WebSocket connection. The only module that uses tungstenite, which reads the socket.
//!
//! Frames from the client go to its [`Session`]. All output passes through the [`Outbox`], including tungstenite's own
//! answers. This task writes the output while it works for its client and when the socket was full; otherwise the
//! outbox's writer does.
//!
//! While commands wait for PocketBase or Redis, the socket is still read, so that pongs arrive; a [`Backlog`] of
//! bounded size keeps the messages in order.

use crate::connection::Connection;
use crate::outbox::{Outbox, OutboxState};
use crate::protocol::codes::{self, Disconnect};
use crate::protocol::frame::Frame;
use crate::protocol::json;
use crate::session::timing::{Clock, Due, Pings};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::stream::ClientStream;
use bytes::Bytes;
use futures_util::future::Either;
use std::collections::VecDeque;
use std::future::{poll_fn, ready};
use std::io::{self, ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::Duration;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, Utf8Bytes};

/// Read buffer of a connection that is being read; an idle connection has none. Enough for a client's usual frame;
/// larger frames get more room.
const READ_BUFFER: usize = 1024;
/// tungstenite's buffer for its own writes, which go to the outbox at once.
const WRITE_BUFFER: usize = 1024;
/// Maximum bytes of messages waiting while earlier messages are handled. A message is read while there is room,
/// whatever its size up to `max_frame_size`.
const BACKLOG: usize = 16 * 1024;
/// Cost of a waiting message in addition to its own bytes.
const ARRIVED: usize = 64;
/// Maximum time for each step of closing a connection: writing the rest, and waiting for the client's end.
const CLOSING: Duration = Duration::from_secs(1);

/// Reason why a connection ended.
enum End {
    /// The gateway ends the connection and sends the reason.
    Disconnect(Disconnect),
    /// The client violated the WebSocket protocol itself: a close code below 3000.
    Violation(CloseCode, &'static str),
    /// The client closed.
    Client,
    /// The connection is lost: no close frame can be sent.
    Gone,
}

impl From<Disconnect> for End {
    fn from(reason: Disconnect) -> Self {
        End::Disconnect(reason)
    }
}

/// Serves one client until either side ends the connection. `early`: bytes that arrived with the handshake; `held`:
/// dropped after everything else.
///
/// Not an `async fn`, which would have room for its arguments twice, for as long as the connection lives.
pub fn serve(
    stream: Arc<ClientStream>,
    early: Bytes,
    mut session: Session,
    outbox: Arc<Outbox>,
    services: Arc<Services>,
    shutdown: Arc<Shutdown>,
    held: impl Send,
) -> impl Future<Output = ()> + Send {
    let (unread, max_frame_size) = (early.len(), services.config.max_frame_size);
    // A copy: hyper's own buffer of 8 KiB would otherwise become the buffer of the connection.
    let reader = Some(reader(early.to_vec(), max_frame_size));
    drop(early);
    let mut incoming = Incoming { reader, through: Through { stream, outbox, unread }, max_frame_size };
    async move {
        let end = run(&mut incoming, &mut session, &services, &shutdown).await;
        if matches!(end, End::Disconnect(codes::NO_PONG)) {
            session.lose();
        }
        // Leaves all channels before the client is told, so that nothing more is queued for the client.
        drop(session);
        count(&end, &services);
        drop(services);
        // Boxed: few connections are closing at a time, and the others need not hold room for it.
        Box::pin(close(incoming, end)).await;
        drop(held);
    }
}

fn count(end: &End, services: &Services) {
    let code = match end {
        End::Disconnect(reason) => reason.code.to_string(),
        End::Violation(code, _) => u16::from(*code).to_string(),
        End::Client | End::Gone => "client".to_owned(),
    };
    services.metrics.disconnects.with_label_values(&[&code]).inc();
}

fn run<'a>(
    incoming: &'a mut Incoming,
    session: &'a mut Session,
    services: &'a Services,
    shutdown: &'a Shutdown,
) -> impl Future<Output = End> + Send {
    let clock = Clock::new(&services.config, Instant::now());
    async move {
        let stream = Arc::clone(&incoming.through.stream);
        let outgoing = Outgoing { stream, outbox: Arc::clone(&incoming.through.outbox) };
        let next_tick = clock.with(|timing| timing.next());
        let (farewell, tick) = (pin!(shutdown.farewell(session.id())), pin!(sleep_until(next_tick)));
        let mut line =
            Line { incoming, outgoing, clock: &clock, services, tick, farewell, is_leaving: false, connection: None };
        loop {
            // Awaited outside of the match, and boxed: idle connections need not hold room for a message and its
            // handling.
            let step = match line.attend(true).await {
                Ok(Some(message)) => Either::Left(Box::pin(work(message, session, &mut line))),
                Ok(None) => Either::Right(ready(Ok(()))),
                Err(end) => Either::Right(ready(Err(end))),
            };
            if let Err(end) = step.await {
                return end;
            }
            // A client that sends without pause does not keep the thread to itself.
            consume_budget().await;
        }
    }
}

/// Handles a message, and the messages that arrive meanwhile, in order. While commands wait for PocketBase or Redis,
/// or the socket is full, the connection is read (up to the limit of [`Backlog`]) and written, and pings leave on
/// time.
async fn work<F: Future<Output = ()>>(
    message: Result<Message, Error>,
    session: &mut Session,
    line: &mut Line<'_, F>,
) -> Result<(), End> {
    let mut backlog = Backlog::default();
    backlog.take(message, line);
    loop {
        // A client that does not take its replies gets no further replies.
        while line.outgoing.outbox.state() != OutboxState::Open {
            if let Some(message) = line.attend(backlog.has_room()).await? {
                backlog.take(message, line);
            }
        }
        match backlog.next() {
            Some(arrived) => {
                handle(arrived, &mut backlog, session, line).await?;
                line.connection = session.authenticated().cloned();
            }
            None => return backlog.end.map_or(Ok(()), |(end, _)| Err(end)),
        }
        if backlog.is_out_of_time(line.services.config.command_timeout) {
            backlog.waiting.clear();
        }
        consume_budget().await;
    }
}

/// Handles a message in the session, and attends to the rest of the connection meanwhile.
async fn handle<F: Future<Output = ()>>(
    arrived: Arrived,
    backlog: &mut Backlog,
    session: &mut Session,
    line: &mut Line<'_, F>,
) -> Result<(), End> {
    let frame = match arrived {
        Arrived::Frame(frame) => frame,
        Arrived::Control => return session.count_frame().map_err(End::from),
    };
    let (outbox, clock) = (Arc::clone(&line.outgoing.outbox), line.clock);
    let mut handling = pin!(session.handle(&frame, clock));
    // Replies that are ready at once leave in a single write.
    let mut corked = poll_fn(|cx| {
        outbox.cork();
        let step = handling.as_mut().poll(cx);
        outbox.uncork();
        step
    });
    loop {
        tokio::select! {
            biased;
            done = &mut corked => return done.map_err(End::from),
            attended = line.attend(backlog.has_room()) => if let Some(message) = attended? {
                backlog.take(message, line);
            }
        }
    }
}

/// All parts of a connection but its session.
struct Line<'a, F> {
    incoming: &'a mut Incoming,
    outgoing: Outgoing,
    clock: &'a Clock,
    services: &'a Services,
    tick: Pin<&'a mut Sleep>,
    farewell: Pin<&'a mut F>,
    is_leaving: bool,
    /// Set once the client is authenticated.
    connection: Option<Arc<Connection>>,
}

impl<F: Future<Output = ()>> Line<'_, F> {
    /// Waits for the next event and handles it: read, write, ping, or end the connection. Returns a message that has
    /// arrived; reads only with `may_read`. Safe to cancel.
    async fn attend(&mut self, may_read: bool) -> Result<Option<Result<Message, Error>>, End> {
        // Fields are used in place: each variable would enlarge the future of every idle connection.
        let next = self.clock.with(|timing| timing.next());
        if self.tick.deadline() != next {
            self.tick.as_mut().reset(next);
        }
        tokio::select! {
            message = poll_fn(|cx| self.incoming.poll_next(cx)), if may_read => return Ok(Some(message)),
            attended = self.outgoing.attend(self.services) => match attended {
                Ok(Attended::Changed) => {}
                Ok(Attended::Moved) => {
                    let pings = Pings::of(&self.services.config);
                    self.clock.with(|timing| timing.moved(Instant::now(), pings));
                    self.show_life();
                }
                Err(end) => {
                    // A write that fails, as after a reset: the client has closed just now.
                    if matches!(end, End::Gone) {
                        self.show_life();
                    }
                    return Err(end);
                }
            },
            () = self.tick.as_mut() => return self.tick(may_read),
            () = self.farewell.as_mut(), if !self.is_leaving => {
                // Ends the connection once the whole queue has been written.
                self.outgoing.outbox.close(codes::SHUTDOWN);
                self.is_leaving = true;
            }
        }
        Ok(None)
    }

    fn show_life(&self) {
        self.connection.iter().for_each(|connection| connection.show_life());
    }

    fn tick<T>(&self, may_read: bool) -> Result<Option<T>, End> {
        let pings = Pings::of(&self.services.config);
        match self.clock.with(|timing| timing.due(Instant::now(), pings, may_read)) {
            Due::Nothing => {}
            Due::Ping => drop(self.outgoing.outbox.push(json::PING)),
            Due::End(reason) => return Err(reason.into()),
        }
        Ok(None)
    }
}

/// Messages that arrived while earlier messages were handled, in order. [`BACKLOG`] limits the bytes: past the limit,
/// the connection is not read until there is room.
#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Arrived>,
    /// Bytes in `waiting`, plus [`ARRIVED`] per message.
    held: usize,
    /// The end of the connection after the waiting messages, and the time when the end was read.
    end: Option<(End, Instant)>,
}

enum Arrived {
    Frame(Utf8Bytes),
    /// A ping or pong of the WebSocket protocol, which costs as much as a command.
    Control,
}

impl Arrived {
    fn cost(&self) -> usize {
        ARRIVED + if let Arrived::Frame(frame) = self { frame.len() } else { 0 }
    }
}

impl Backlog {
    fn has_room(&self) -> bool {
        self.end.is_none() && self.held < BACKLOG
    }

    /// Takes a message or the error of a read. A pong takes effect at once. An error is a sign of life as well: a client
    /// that closes without reading everything resets the connection.
    fn take<F: Future<Output = ()>>(&mut self, message: Result<Message, Error>, line: &Line<'_, F>) {
        line.show_life();
        let arrived = match message {
            Ok(Message::Text(frame)) => {
                if line.clock.with(|timing| timing.arrived(&frame)) {
                    line.services.metrics.commands.with_label_values(&["pong"]).inc();
                    return;
                }
                Ok(Arrived::Frame(frame))
            }
            // tungstenite answers pings itself, with its next read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Arrived::Control),
            Ok(Message::Close(_)) => Err(End::Client),
            Ok(Message::Binary(_)) => {
                line.services.metrics.bad_frames.with_label_values(&["binary"]).inc();
                Err(codes::BAD_REQUEST_FRAME.into())
            }
            Err(error) => Err(broken(&error, line.services)),
        };
        match arrived {
            Ok(arrived) => {
                self.held += arrived.cost();
                self.waiting.push_back(arrived);
            }
            Err(end) => self.end = Some((end, Instant::now())),
        }
    }

    fn next(&mut self) -> Option<Arrived> {
        let next = self.waiting.pop_front()?;
        self.held -= next.cost();
        Some(next)
    }

    /// Whether the client has been gone for so long that the waiting messages are no longer handled.
    fn is_out_of_time(&self, patience: Duration) -> bool {
        self.end.as_ref().is_some_and(|(_, at)| at.elapsed() >= patience)
    }
}

/// The socket as tungstenite sees it. Writes go into the outbox, so that tungstenite's frames stand between the
/// gateway's frames and never within one.
struct Through {
    stream: Arc<ClientStream>,
    outbox: Arc<Outbox>,
    /// Bytes that tungstenite has read and that belong to no message yet; too many if frames were longer than
    /// necessary. 0: tungstenite's buffer is empty.
    unread: usize,
}

impl Read for Through {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.stream.try_read(buffer)?;
        self.unread += size;
        Ok(size)
    }
}

impl Write for Through {
    fn write(&mut self, encoded: &[u8]) -> io::Result<usize> {
        self.outbox.push_last(Frame::encoded(encoded));
        Ok(encoded.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Incoming {
    /// `None` while no message of the client is half read or unanswered: most connections are idle most of the time,
    /// and save half a kilobyte.
    reader: Option<Box<WebSocketContext>>,
    through: Through,
    max_frame_size: usize,
}

impl Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            if self.reader.is_none() {
                task::ready!(self.through.stream.poll_read_ready(cx))?;
            }
            let (reader, through) = self.parts();
            match reader.read(through) {
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if self.through.unread == 0 {
                        self.reader = None;
                    }
                    task::ready!(self.through.stream.poll_read_ready(cx))?;
                }
                Ok(message) => {
                    self.through.unread -= least_size(&message);
                    return Poll::Ready(Ok(message));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    fn parts(&mut self) -> (&mut WebSocketContext, &mut Through) {
        let reader = self.reader.get_or_insert_with(|| reader(Vec::new(), self.max_frame_size));
        (reader, &mut self.through)
    }
}

fn reader(early: Vec<u8>, limit: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_frame_size(Some(limit))
        .max_message_size(Some(limit));
    Box::new(WebSocketContext::from_partially_read(early, Role::Server, Some(config)))
}

/// Minimum number of bytes that a client has sent for a message: one frame with the shortest header.
fn least_size(message: &Message) -> usize {
    if message.is_close() {
        // tungstenite may have replaced the client's reason. Nothing follows a close frame anyway.
        return 0;
    }
    let payload = message.len();
    let header = match payload {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    };
    header + payload
}

/// Outcome of [`Outgoing::attend`].
#[derive(PartialEq)]
enum Attended {
    /// The outbox's state has changed and has to be read again.
    Changed,
    /// The socket was full and has accepted bytes.
    Moved,
}

struct Outgoing {
    stream: Arc<ClientStream>,
    outbox: Arc<Outbox>,
}

impl Outgoing {
    /// Waits for the next task of the outbox and does it. A client that does not read is disconnected once its queue
    /// is full or `write_timeout` is over. Safe to cancel.
    async fn attend(&self, services: &Services) -> Result<Attended, End> {
        let outbox = &self.outbox;
        match outbox.state() {
            OutboxState::Over(reason) => Err(reason.map_or(End::Gone, End::from)),
            OutboxState::Open => {
                outbox.changed().await;
                Ok(Attended::Changed)
            }
            // Boxed: few sockets are full at a time, and the other connections need not hold room for it.
            OutboxState::Full(since) => Box::pin(self.make_room(since + services.config.write_timeout)).await,
        }
    }

    async fn make_room(&self, deadline: Instant) -> Result<Attended, End> {
        let Self { stream, outbox } = self;
        tokio::select! {
            writable = stream.writable() => match writable {
                Ok(()) => {
                    outbox.flush();
                    Ok(Attended::Moved)
                }
                Err(_) => Err(End::Gone),
            },
            () = outbox.changed() => Ok(Attended::Changed),
            () = sleep_until(deadline) => Err(codes::SLOW.into()),
        }
    }
}

fn broken(error: &Error, services: &Services) -> End {
    let (kind, end) = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => ("too_big", codes::FRAME_TOO_BIG.into()),
        Error::Utf8(_) => ("utf8", End::Violation(CloseCode::Invalid, "text that is not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Gone,
        Error::Protocol(_) => ("websocket", End::Violation(CloseCode::Protocol, "WebSocket protocol violated")),
        _ => return End::Gone,
    };
    services.metrics.bad_frames.with_label_values(&[kind]).inc();
    end
}

/// Writes the queue and the close frame, and gives the client a moment to read them.
async fn close(mut incoming: Incoming, end: End) {
    let (stream, outbox) = (Arc::clone(&incoming.through.stream), Arc::clone(&incoming.through.outbox));
    // Frames that were queued before the end, such as an error reply, still leave.
    outbox.close(codes::SHUTDOWN);
    let told = match end {
        End::Gone => return outbox.hang_up(),
        // The answer to the client's own close frame waits to be written.
        End::Client => {
            let (reader, through) = incoming.parts();
            reader.flush(through)
        }
        End::Violation(code, reason) => say(&mut incoming, CloseFrame { code, reason: reason.into() }),
        End::Disconnect(reason) => {
            if reason == codes::SLOW {
                outbox.abort(reason);
            }
            say(&mut incoming, CloseFrame { code: reason.code.into(), reason: reason.reason.into() })
        }
    };
    if let Err(error) = told {
        tracing::trace!(%error, "the client closed first");
    }
    let _ = timeout(CLOSING, async {
        outbox.flush();
        while !outbox.is_empty() {
            stream.writable().await?;
            outbox.flush();
        }
        io::Result::Ok(())
    })
    .await;
    // Unread input would turn the end of the connection into a reset, which can overtake the close frame.
    let _ = timeout(CLOSING, async {
        socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Write)?;
        let mut unread = vec![0; 4096];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut unread) {
                Ok(0) => return io::Result::Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    })
    .await;
    outbox.hang_up();
}

fn say(incoming: &mut Incoming, frame: CloseFrame) -> Result<(), Error> {
    let (reader, through) = incoming.parts();
    reader.close(through, Some(frame))
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
