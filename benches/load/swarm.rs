//! The clients of one target, on a few threads. Each thread serves its share of the connections in one loop.

mod asides;
mod connection;
mod worker;

use crate::dialect::{Dialect, Ticket};
use crate::tally::{Plan, Sent, Summary, histogram};
use hdrhistogram::Histogram;
use mio::Waker;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use worker::{Order, Worker};

/// Time limit for the set-ups together.
const CONNECTING: Duration = Duration::from_secs(120);
/// Time limit for the last messages of a run, and the pause after which no more messages are expected.
const DRAINING: Duration = Duration::from_secs(6);
const SILENCE: Duration = Duration::from_millis(1500);
/// Length of silence after which a server's queue counts as delivered.
const CALM: Duration = Duration::from_millis(300);
/// Time to wait for duplicates after the last expected message.
const LATE: Duration = Duration::from_millis(50);

pub struct Swarm {
    threads: Vec<Handle>,
    shared: Arc<Shared>,
    size: usize,
}

struct Handle {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// Counters that the threads update while they work.
#[derive(Default)]
struct Shared {
    /// Received messages of the current run.
    arrived: AtomicU64,
    /// Received messages of every run.
    seen: AtomicU64,
    /// Connections ended by the server.
    closed: AtomicUsize,
    /// The first reason for a failed set-up or an ended connection.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn complain(&self, trouble: String) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
    }
}

/// Results of a thread's set-ups.
pub struct SetUps {
    /// Duration of each set-up up to the subscription, in microseconds.
    pub times: Histogram<u64>,
    /// Time of the last subscription; see [`crate::mark::now`].
    pub finished: u64,
    pub failed: usize,
    /// Clients with recovered messages, and clients told to reload.
    pub recovered: usize,
    pub unrecovered: usize,
}

impl SetUps {
    fn new() -> Self {
        Self { times: histogram(), finished: 0, failed: 0, recovered: 0, unrecovered: 0 }
    }
}

impl Swarm {
    pub fn new(address: SocketAddr, dialect: &Arc<dyn Dialect>, tickets: &[Ticket], threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |share: usize| {
            let share: Vec<Ticket> = tickets.iter().skip(share).step_by(threads).cloned().collect();
            let (orders, taken) = channel();
            let ways = (orders.clone(), taken);
            let worker = Worker::new(address, Arc::clone(dialect), share, ways, Arc::clone(&shared));
            let waker = worker.waker();
            Handle { orders, waker, thread: Some(std::thread::spawn(|| worker.run())) }
        };
        Self { threads: (0..threads).map(start).collect(), shared: Arc::clone(&shared), size: tickets.len() }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Connects and subscribes the clients, with at most `in_flight` set-ups at a time.
    pub fn connect(&self, in_flight: usize) -> SetUps {
        let in_flight = in_flight.div_ceil(self.threads.len());
        let answers = self.ask(|answer| Order::Connect { in_flight, answer });
        let mut all = SetUps::new();
        let deadline = Instant::now() + CONNECTING;
        for _ in &self.threads {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(one) = answers.recv_timeout(left) else {
                self.shared.complain(format!("not all set-ups were done after {CONNECTING:?}"));
                all.failed += 1;
                break;
            };
            all.times.add(&one.times).expect("the same bounds");
            all.finished = all.finished.max(one.finished);
            all.failed += one.failed;
            all.recovered += one.recovered;
            all.unrecovered += one.unrecovered;
        }
        all
    }

    /// Closes every connection and waits until the threads are done.
    pub fn close(&self) {
        let answers = self.ask(Order::Close);
        answers.iter().take(self.threads.len()).count();
    }

    /// Starts a run: messages arriving from now on count for `plan`.
    pub fn begin(&self, plan: Plan) {
        self.shared.arrived.store(0, Ordering::Relaxed);
        let answers = self.ask(|answer| Order::Begin(plan, answer));
        answers.iter().take(self.threads.len()).count();
    }

    /// Waits until `expected` messages have arrived, or until no more arrive.
    pub fn drain(&self, expected: u64) {
        let deadline = Instant::now() + DRAINING;
        let (mut arrived, mut changed) = (0, Instant::now());
        loop {
            let now = self.shared.arrived.load(Ordering::Relaxed);
            if now != arrived {
                (arrived, changed) = (now, Instant::now());
            }
            if now >= expected {
                // Duplicates arrive late.
                std::thread::sleep(LATE);
                return;
            }
            if changed.elapsed() > SILENCE || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the server has delivered its queue.
    pub fn calm_down(&self) {
        let deadline = Instant::now() + DRAINING;
        let mut before = u64::MAX;
        while Instant::now() < deadline {
            let seen = self.shared.seen.load(Ordering::Relaxed);
            if seen == before {
                return;
            }
            before = seen;
            std::thread::sleep(CALM);
        }
    }

    pub fn finish(&self, sent: Sent) -> Summary {
        let sent = Arc::new(sent);
        let answers = self.ask(|answer| Order::Finish(Arc::clone(&sent), answer));
        let mut all = Summary::new();
        answers.iter().take(self.threads.len()).for_each(|one| all.add(&one));
        all
    }

    /// Number of connections ended by the server so far.
    pub fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// The first error since the last call.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn ask<T>(&self, order: impl Fn(Sender<T>) -> Order) -> Receiver<T> {
        let (answer, answers) = channel();
        for thread in &self.threads {
            thread.orders.send(order(answer.clone())).expect("the thread runs");
            thread.waker.wake().expect("the thread waits");
        }
        answers
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            let _ = thread.orders.send(Order::End);
            let _ = thread.waker.wake();
            let ended = thread.thread.take().map(JoinHandle::join);
            if ended.is_some_and(|ended| ended.is_err()) && !std::thread::panicking() {
                panic!("a thread of clients panicked");
            }
        }
    }
}
