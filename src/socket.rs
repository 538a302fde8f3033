//! A client's connection: the loop that reads, handles and writes.
//!
//! The connection is a WebSocket, or a stream: an HTTP response without end, whose client sends commands by other HTTP
//! requests. The [`reader`] gets the client's frames from the WebSocket ([`reading`]) or from the stream's
//! [inbox](crate::inboxes), and they go to the [`Session`]. The output passes through the [`Outbox`], including the
//! answers of tungstenite. This task [writes](writing) the output while working for the
//! client and after a full socket; otherwise the outbox's writer does. [`closing`] ends the connection.
//!
//! While commands wait for PocketBase or Redis, the [`line`] to the client is still read, for pongs; a [`backlog`] of
//! bounded size keeps the messages in order.

mod backlog;
mod closing;
mod line;
mod reader;
mod reading;
mod writing;

use crate::inboxes::InboxHandle;
use crate::outbox::{Outbox, OutboxState};
use crate::protocol::codes;
use crate::session::timing::Clock;
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::stream::ClientStream;
use backlog::{Arrived, Backlog};
use bytes::Bytes;
use closing::{ConnectionEnd, close};
use futures_util::future::Either;
use line::Line;
use reader::{Arrival, Reader};
use reading::MessageReader;
use std::future::{poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};
use writing::Writing;

/// The parts of a connection, whatever the transport.
pub struct Parts<H> {
    pub stream: Arc<ClientStream>,
    pub session: Session,
    pub outbox: Arc<Outbox>,
    pub services: Arc<Services>,
    pub shutdown: Arc<Shutdown>,
    /// Dropped after everything else.
    pub held: H,
}

/// Serves the client of a WebSocket until either side ends the connection. `early`: bytes that arrived with the
/// handshake.
pub fn serve_websocket<H: Send>(parts: Parts<H>, early: Bytes) -> impl Future<Output = ()> + Send + use<H> {
    let Parts { stream, outbox, services, .. } = &parts;
    let (stream, outbox) = (Arc::clone(stream), Arc::clone(outbox));
    let reader = MessageReader::new(stream, outbox, &early, services.config.max_frame_size);
    drop(early);
    serve(parts, Reader::WebSocket(reader))
}

/// Serves the client of a stream until either side ends the connection.
pub fn serve_stream<H: Send>(parts: Parts<H>, inbox: InboxHandle) -> impl Future<Output = ()> + Send + use<H> {
    let reader = Reader::of_stream(Arc::clone(&parts.stream), Arc::clone(&parts.outbox), inbox);
    serve(parts, reader)
}

/// Not an `async fn`: the future would hold the arguments twice, for as long as the connection lives.
fn serve<H: Send>(parts: Parts<H>, mut reader: Reader) -> impl Future<Output = ()> + Send + use<H> {
    let Parts { mut session, services, shutdown, held, .. } = parts;
    let clock = Clock::new(&services.config, Instant::now());
    async move {
        let end = {
            let writing = Writing { stream: Arc::clone(reader.stream()), outbox: Arc::clone(reader.outbox()) };
            let farewell = pin!(shutdown.farewell(session.id()));
            let tick = pin!(sleep_until(clock.with(|timing| timing.next())));
            let reader = &mut reader;
            let (clock, services) = (&clock, &*services);
            let mut line =
                Line { reader, writing, clock, services, tick, farewell, is_leaving: false, connection: None };
            loop {
                // Awaited outside of the match, and boxed: idle connections need not hold room for a message and its
                // handling.
                let step = match line.attend(true).await {
                    Ok(Some(arrival)) => Either::Left(Box::pin(work(arrival, &mut session, &mut line))),
                    Ok(None) => Either::Right(ready(Ok(()))),
                    Err(end) => Either::Right(ready(Err(end))),
                };
                if let Err(end) = step.await {
                    break end;
                }
                // A client sending without pause does not occupy the thread.
                consume_budget().await;
            }
        };
        if matches!(end, ConnectionEnd::Disconnect(codes::NO_PONG)) {
            session.lose();
        }
        // Leaves all channels before the client is told, so that nothing more is queued for the client.
        drop(session);
        end.count(&services);
        drop(services);
        // Boxed: few connections are closing at a time, and open connections need not hold room for the close.
        Box::pin(close(reader, end)).await;
        drop(held);
    }
}

/// Handles an arrival, and those that follow meanwhile, in order. While commands wait for PocketBase or Redis,
/// or the socket is full, the connection is read (up to the limit of [`Backlog`]) and written, and pings leave on
/// time.
async fn work<F: Future<Output = ()>>(
    arrival: Arrival,
    session: &mut Session,
    line: &mut Line<'_, F>,
) -> Result<(), ConnectionEnd> {
    let mut backlog = Backlog::default();
    backlog.take(arrival, line);
    loop {
        // A client that leaves replies unread gets no further replies.
        while line.writing.outbox.state() != OutboxState::Open {
            if let Some(arrival) = line.attend(backlog.has_room()).await? {
                backlog.take(arrival, line);
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
            backlog.clear();
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
) -> Result<(), ConnectionEnd> {
    let frame = match arrived {
        Arrived::Frame(frame) => frame,
        Arrived::Control => return session.count_frame().map_err(ConnectionEnd::from),
    };
    let (outbox, clock) = (Arc::clone(&line.writing.outbox), line.clock);
    let mut handling = pin!(session.handle(&frame, clock));
    // Replies ready at once leave in a single write.
    let mut corked = poll_fn(|cx| {
        outbox.cork();
        let step = handling.as_mut().poll(cx);
        outbox.uncork();
        step
    });
    loop {
        tokio::select! {
            biased;
            done = &mut corked => return done.map_err(ConnectionEnd::from),
            attended = line.attend(backlog.has_room()) => if let Some(arrival) = attended? {
                backlog.take(arrival, line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The future of [`serve`] exists once per open connection, and the size counts: with the places of the connection
    /// and the fields of tokio's task, 704 bytes make a task of 896, and one word more makes 1,024, since a task's size
    /// is a multiple of 128. Measured are the futures that functions return.
    #[test]
    fn an_idle_connection_holds_no_room_for_messages() {
        fn size<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
            size_of::<R>()
        }
        let serve = |parts: Parts<()>, reader| serve(parts, reader);
        let (session, future) = (size_of::<Session>(), size(serve));
        println!("a session takes {session} bytes, and the future of its connection {future}");
        assert!(future <= 704, "{future} bytes, of which the session takes {session}");
    }
}
