//! One WebSocket: the only module that knows tungstenite. Frames from the client go to its [`Session`]; what its
//! [`Outbox`] holds is written, all that is queued in one go.

use crate::outbox::Outbox;
use crate::protocol::codes::{self, Disconnect};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// Enough for a client's usual frame; the library's default costs 128 KiB for each idle connection.
const READ_BUFFER: usize = 1024;
/// Frames are joined up to here before they are written, and larger ones leave in pieces of this size: tungstenite
/// copies what it writes into a buffer that never shrinks, and one large frame would make it large for good.
const WRITE_BUFFER: usize = 16 * 1024;
/// The most that this buffer may hold. Room for the answers to pings beside our own writes: tungstenite queues one
/// for each ping that it reads, also while nothing can be written, and drops them here.
const WRITE_BUFFER_MAX: usize = 4 * WRITE_BUFFER;
/// How much the kernel may hold that it has not sent yet. Without a bound it takes up to 4 MiB for each client that
/// does not read, in none of our figures, before we notice anything.
const KERNEL_BUFFER: u32 = 128 * 1024;
/// How long a closing connection may take to take note of it.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a connection ended.
enum End {
    /// We end it, and say why.
    Disconnect(Disconnect),
    /// The client broke the WebSocket protocol itself: a close code below 3000.
    Violation(CloseCode, &'static str),
    /// The client closed, or is gone.
    Client,
}

impl From<Disconnect> for End {
    fn from(reason: Disconnect) -> Self {
        End::Disconnect(reason)
    }
}

/// Serves one client until either side ends it. `early` are bytes that came together with the handshake.
pub async fn serve(
    stream: TcpStream,
    early: Bytes,
    mut session: Session,
    outbox: Arc<Outbox>,
    services: Arc<Services>,
    shutdown: Shutdown,
) {
    bound_kernel_buffer(&stream);
    let limit = Some(services.config.max_frame_size);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_frame_size(limit)
        .max_message_size(limit);
    let socket = WebSocketStream::from_partially_read(stream, early.into(), Role::Server, Some(config)).await;
    let mut connection = Connection { socket, outbox, services, batch: Vec::new() };
    let end = connection.run(&mut session, &shutdown).await;
    // Leaves all channels before the client is told, so that nothing is queued for it any more.
    drop(session);
    let code = match &end {
        End::Disconnect(reason) => reason.code.to_string(),
        End::Violation(code, _) => u16::from(*code).to_string(),
        End::Client => "client".to_owned(),
    };
    connection.services.metrics.disconnects.with_label_values(&[&code]).inc();
    connection.close(end).await;
}

struct Connection {
    socket: WebSocketStream<TcpStream>,
    outbox: Arc<Outbox>,
    services: Arc<Services>,
    /// Frames taken from the outbox and not yet given to the socket; kept for its memory.
    batch: Vec<Bytes>,
}

impl Connection {
    async fn run(&mut self, session: &mut Session, shutdown: &Shutdown) -> End {
        // Kept from turn to turn: a publication that wakes a thousand connections must not have each of them
        // register anew with the timer and the token that all share.
        let (mut farewell, mut tick) = (pin!(shutdown.farewell(session.id())), pin!(sleep_until(session.next_tick())));
        let mut leaving = false;
        loop {
            let step = tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(frame))) => self.handle(session, &frame).await,
                    Some(Ok(Message::Binary(_))) => {
                        self.services.metrics.bad_frames.with_label_values(&["binary"]).inc();
                        Err(codes::BAD_REQUEST_FRAME.into())
                    }
                    // tungstenite answers pings itself; the answer leaves with its next read or write.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                        session.count_frame().map_err(End::from)
                    }
                    Some(Ok(Message::Close(_))) | None => {
                        session.show_life();
                        Err(End::Client)
                    }
                    Some(Err(error)) => {
                        if !matches!(error, Error::Io(_)) {
                            session.show_life();
                        }
                        Err(self.broken(&error))
                    }
                },
                taken = self.outbox.take(&mut self.batch) => match taken {
                    Ok(()) => self.write().await,
                    Err(reason) => Err(reason.into()),
                },
                () = &mut tick => session.tick(Instant::now()).map_err(End::from),
                () = &mut farewell, if !leaving => {
                    // Ends the loop once everything that is queued has been written.
                    self.outbox.close(codes::SHUTDOWN);
                    leaving = true;
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
            let next_tick = session.next_tick();
            if tick.deadline() != next_tick {
                tick.as_mut().reset(next_tick);
            }
        }
    }

    /// Lets the session work on a frame while what is queued goes on being written.
    async fn handle(&mut self, session: &mut Session, frame: &str) -> Result<(), End> {
        let mut handling = pin!(session.handle(frame));
        loop {
            tokio::select! {
                biased;
                done = &mut handling => return done.map_err(End::from),
                taken = self.outbox.take(&mut self.batch) => {
                    taken?;
                    self.write().await?;
                }
            }
        }
    }

    /// Writes the batch. A client that does not read is given up once its queue is full or time is over.
    async fn write(&mut self) -> Result<(), End> {
        let Self { socket, outbox, services, batch } = self;
        let writing = async {
            // Answers to pings may have piled up and leave no room.
            socket.flush().await?;
            for frame in batch.drain(..) {
                if !outbox.is_withdrawn(&frame) {
                    feed(socket, frame).await?;
                }
            }
            socket.flush().await
        };
        tokio::select! {
            biased;
            written = timeout(services.config.write_timeout, writing) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Client),
                Err(_) => Err(codes::SLOW.into()),
            },
            reason = outbox.aborted() => Err(reason.into()),
        }
    }

    fn broken(&self, error: &Error) -> End {
        let (kind, end) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => ("too_big", codes::FRAME_TOO_BIG.into()),
            Error::Utf8(_) => ("utf8", End::Violation(CloseCode::Invalid, "text that is not UTF-8")),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Client,
            Error::Protocol(_) => ("websocket", End::Violation(CloseCode::Protocol, "WebSocket protocol violated")),
            _ => return End::Client,
        };
        self.services.metrics.bad_frames.with_label_values(&[kind]).inc();
        end
    }

    /// Writes what is queued, says why, and gives the client a moment to take it.
    async fn close(mut self, end: End) {
        let frame = match end {
            End::Client => None,
            End::Violation(code, reason) => Some(CloseFrame { code, reason: reason.into() }),
            End::Disconnect(reason) => Some(CloseFrame { code: reason.code.into(), reason: reason.reason.into() }),
        };
        let slow = matches!(end, End::Disconnect(codes::SLOW));
        let _ = timeout(CLOSING, async {
            if frame.is_some() && !slow {
                // What the client was told before the end, such as an error reply.
                self.outbox.close(codes::SHUTDOWN);
                while self.outbox.take(&mut self.batch).await.is_ok() {
                    self.write().await.ok()?;
                }
            }
            match frame {
                Some(frame) => self.socket.close(Some(frame)).await,
                // The answer to the client's own close frame waits to be written.
                None => SinkExt::close(&mut self.socket).await,
            }
            .ok()
        })
        .await;
        // Unread input would turn the end of the connection into a reset, which can overtake the close frame.
        let stream = self.socket.get_mut();
        let _ = timeout(CLOSING, async {
            stream.shutdown().await?;
            let mut unread = BytesMut::with_capacity(4096);
            while stream.read_buf(&mut unread).await? > 0 {
                unread.clear();
            }
            std::io::Result::Ok(())
        })
        .await;
    }
}

/// Puts one message into the socket's buffer, in pieces if it is large.
async fn feed(socket: &mut WebSocketStream<TcpStream>, mut frame: Bytes) -> Result<(), Error> {
    let mut kind = Data::Text;
    loop {
        let piece = frame.split_to(frame.len().min(WRITE_BUFFER));
        let last = frame.is_empty();
        socket.feed(Message::Frame(Frame::message(piece, OpCode::Data(kind), last))).await?;
        if last {
            return Ok(());
        }
        kind = Data::Continue;
    }
}

/// Where the system does not offer it, its own bounds hold.
fn bound_kernel_buffer(stream: &TcpStream) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(KERNEL_BUFFER) {
        tracing::debug!(%error, "the kernel's buffer stays unbounded");
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = (stream, KERNEL_BUFFER);
}
