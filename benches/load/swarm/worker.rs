//! One thread's share of the clients: a loop around epoll, with a shared read buffer.

use super::asides::Asides;
use super::connection::{Connection, Outcome, Reader, Seat};
use super::{SetUps, Shared};
use crate::dialect::{Dialect, Place, Ticket};
use crate::mark::now;
use crate::tally::{Plan, Sent, Summary, Tally};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

const WAKE: Token = Token(usize::MAX);

pub enum Order {
    Connect {
        in_flight: usize,
        answer: Sender<SetUps>,
    },
    Close(Sender<()>),
    Begin(Plan, Sender<()>),
    Finish(Arc<Sent>, Sender<Summary>),
    /// Result of a set-up request on another connection.
    Answered(usize, Result<(), String>),
    End,
}

pub struct Worker {
    address: SocketAddr,
    dialect: Arc<dyn Dialect>,
    clients: Vec<Client>,
    poll: Poll,
    waker: Arc<Waker>,
    own_orders: Sender<Order>,
    orders: Receiver<Order>,
    asides: Option<Asides>,
    shared: Arc<Shared>,
    reader: Reader,
    setting_up: Option<SettingUp>,
}

struct Client {
    ticket: Ticket,
    place: Place,
    connection: Option<Connection>,
}

struct SettingUp {
    /// Clients whose set-up has not begun.
    waiting: Range<usize>,
    under_way: usize,
    in_flight: usize,
    so_far: SetUps,
    answer: Sender<SetUps>,
}

impl Worker {
    pub fn new(
        address: SocketAddr,
        dialect: Arc<dyn Dialect>,
        tickets: Vec<Ticket>,
        (own_orders, orders): (Sender<Order>, Receiver<Order>),
        shared: Arc<Shared>,
    ) -> Self {
        let poll = Poll::new().expect("an epoll");
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).expect("a waker"));
        let reader = Reader::new(&*dialect);
        let client = |ticket| Client { ticket, place: Place::default(), connection: None };
        let clients = tickets.into_iter().map(client).collect();
        let (asides, setting_up) = (None, None);
        Self { address, dialect, clients, poll, waker, own_orders, orders, asides, shared, reader, setting_up }
    }

    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKE => {
                        while let Ok(order) = self.orders.try_recv() {
                            if matches!(order, Order::End) {
                                return;
                            }
                            self.obey(order);
                        }
                    }
                    Token(client) => self.serve(client),
                }
            }
            self.set_up_more();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect { in_flight, answer } => {
                let (waiting, so_far) = (0..self.clients.len(), SetUps::new());
                self.setting_up = Some(SettingUp { waiting, under_way: 0, in_flight, so_far, answer });
            }
            Order::Close(answer) => {
                for client in &mut self.clients {
                    if let Some(connection) = client.connection.take() {
                        client.place.offset += connection.received;
                    }
                }
                let _ = answer.send(());
            }
            Order::Begin(plan, answer) => {
                self.reader.tally = Some(Tally::new(plan, self.clients.len()));
                let _ = answer.send(());
            }
            Order::Finish(sent, answer) => {
                let rooms = self.clients.iter().map(|client| client.ticket.room);
                let tally = self.reader.tally.take().expect("a run was begun");
                let _ = answer.send(tally.finish(&sent, rooms));
            }
            Order::Answered(index, Ok(())) => {
                if let Some(connection) = &mut self.clients[index].connection {
                    connection.answered_aside();
                    self.serve(index);
                }
            }
            Order::Answered(index, Err(reason)) => self.fail(index, reason),
            Order::End => {}
        }
    }

    /// Begins set-ups up to the limit in flight; reports the end of the last one.
    fn set_up_more(&mut self) {
        while let Some(setting_up) = &mut self.setting_up {
            if setting_up.under_way >= setting_up.in_flight {
                return;
            }
            let Some(index) = setting_up.waiting.next() else {
                if let Some(done) = self.setting_up.take_if(|setting_up| setting_up.under_way == 0) {
                    // An error means that the receiver is gone.
                    let _ = done.answer.send(done.so_far);
                }
                return;
            };
            if self.clients[index].connection.is_some() {
                continue;
            }
            setting_up.under_way += 1;
            if let Err(error) = self.open(index) {
                self.fail(index, error.to_string());
            }
        }
    }

    fn open(&mut self, index: usize) -> std::io::Result<()> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let connection = self.clients[index].connection.insert(Connection::new(stream));
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, Token(index), interest)
    }

    fn serve(&mut self, index: usize) {
        let Self { clients, dialect, reader, shared, .. } = self;
        let Client { ticket, place, connection } = &mut clients[index];
        let Some(connection) = connection else { return };
        let seat = Seat { index, room: ticket.room };
        let outcome = if connection.is_subscribed() {
            connection.read(seat, reader, shared)
        } else {
            connection.set_up(seat, (&**dialect, ticket, place), reader, shared)
        };
        match outcome {
            Outcome::Open => {}
            Outcome::Aside(request) => {
                let start = || Asides::start(self.address, &self.own_orders, &self.waker);
                self.asides.get_or_insert_with(start).send(index, request);
            }
            Outcome::Subscribed(took) => self.count_subscribed(index, took),
            Outcome::Failed(reason) => self.fail(index, reason),
        }
    }

    fn count_subscribed(&mut self, index: usize, took: u64) {
        let Some(SettingUp { under_way, so_far, .. }) = &mut self.setting_up else { return };
        *under_way -= 1;
        so_far.times.saturating_record(took / 1000);
        so_far.finished = now();
        match self.clients[index].place.recovered {
            Some(true) => so_far.recovered += 1,
            Some(false) => so_far.unrecovered += 1,
            None => {}
        }
    }

    fn fail(&mut self, index: usize, reason: String) {
        self.shared.complain(reason);
        let connection = self.clients[index].connection.take();
        match &mut self.setting_up {
            Some(setting_up) if connection.is_none_or(|connection| !connection.is_subscribed()) => {
                setting_up.under_way -= 1;
                setting_up.so_far.failed += 1;
            }
            _ => {
                self.shared.closed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
