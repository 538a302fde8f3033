//! A TCP proxy on one link of the topology, with the faults of a link.

use super::process::free_port;
use super::rng::Rng;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Time that a connection stays open after its other end has vanished.
const GHOST: Duration = Duration::from_secs(60);

/// Lasting condition of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    Clear,
    /// Connections are closed, and new connections are refused.
    Cut,
    /// Connections stay open, and data waits until the weather clears.
    Dark,
    /// Each piece of data is delayed.
    Delay(Duration),
    /// Bytes per second and direction.
    Throttle(u32),
}

/// A single event that affects a share of the open connections.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// This direction ends; the other stays open.
    HalfClose { up: bool },
    /// This direction carries `after` more bytes, then both ends are closed, perhaps within a frame.
    Truncate { up: bool, after: usize },
    /// Both ends are closed.
    Close,
    /// The caller is gone, and the upstream end is not told.
    Vanish,
}

#[derive(Clone, Copy)]
struct Order {
    incident: Incident,
    percent: u64,
    salt: u64,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    _end: DropGuard,
}

struct Shared {
    upstream: AtomicU16,
    weather: watch::Sender<Weather>,
    orders: broadcast::Sender<Order>,
    connections: AtomicU64,
}

impl Proxy {
    /// Starts a proxy on a free port in front of `upstream`, a local port.
    pub async fn start(upstream: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((LOCALHOST, port)).await.expect("a free port");
        let shared = Arc::new(Shared {
            upstream: AtomicU16::new(upstream),
            weather: watch::Sender::new(Weather::Clear),
            orders: broadcast::Sender::new(64),
            connections: AtomicU64::new(0),
        });
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(listen(listener, port, Arc::clone(&shared))));
        Self { port, shared, _end: end.drop_guard() }
    }

    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    pub fn strike(&self, incident: Incident, percent: u64, salt: u64) {
        // Without open connections, the order has no receiver.
        let _ = self.shared.orders.send(Order { incident, percent, salt });
    }

    /// Sends new connections to another port from now on.
    pub fn lead_to(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::Relaxed);
    }
}

async fn listen(first: TcpListener, port: u16, shared: Arc<Shared>) {
    let mut weather = shared.weather.subscribe();
    let mut listener = Some(first);
    loop {
        if *weather.borrow_and_update() == Weather::Cut {
            listener = None;
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind((LOCALHOST, port)).await.ok();
            if listener.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            },
            _ = weather.changed() => {}
        }
    }
}

async fn serve(caller: TcpStream, shared: Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let (orders_up, orders_down) = (shared.orders.subscribe(), shared.orders.subscribe());
    let over = CancellationToken::new();
    let mut weather = shared.weather.subscribe();
    if weather.wait_for(|weather| *weather != Weather::Dark).await.is_err() {
        return;
    }
    let upstream = shared.upstream.load(Ordering::Relaxed);
    let Ok(callee) = TcpStream::connect((LOCALHOST, upstream)).await else { return };
    let _ = (caller.set_nodelay(true), callee.set_nodelay(true));
    let ((from_caller, to_caller), (from_callee, to_callee)) = (caller.into_split(), callee.into_split());
    let pump = |up, from, to, orders| {
        let weather = shared.weather.subscribe();
        Pump { number, up, from, to, orders, weather, over: over.clone() }.run()
    };
    tokio::select! {
        _ = async { tokio::join!(pump(true, from_caller, to_callee, orders_up), pump(false, from_callee, to_caller, orders_down)) } => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

/// One direction of one connection.
struct Pump {
    number: u64,
    up: bool,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    orders: broadcast::Receiver<Order>,
    weather: watch::Receiver<Weather>,
    /// Cancelled to end both directions.
    over: CancellationToken,
}

impl Pump {
    async fn run(mut self) {
        let over = self.over.clone();
        if over.run_until_cancelled(self.carry()).await.is_some_and(|end| end.is_err()) {
            over.cancel();
        }
    }

    /// Returns `Ok` when this direction has ended, and an error to end the whole connection.
    async fn carry(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let mut left = usize::MAX;
        loop {
            let count = tokio::select! {
                biased;
                order = self.orders.recv() => {
                    match order.ok().filter(|order| self.concerns_me(order)).map(|order| order.incident) {
                        Some(Incident::HalfClose { up }) if up == self.up => {
                            self.to.shutdown().await?;
                            return Ok(());
                        }
                        Some(Incident::Truncate { up, after }) if up == self.up => left = after,
                        Some(Incident::Close) => return Err(std::io::ErrorKind::BrokenPipe.into()),
                        Some(Incident::Vanish) => return self.vanish(&mut buffer).await,
                        _ => {}
                    }
                    continue;
                }
                count = self.from.read(&mut buffer) => count?,
            };
            self.pass(count).await;
            if count == 0 {
                self.to.shutdown().await?;
                return Ok(());
            }
            self.to.write_all(&buffer[..count.min(left)]).await?;
            left = left.saturating_sub(count);
            if left == 0 {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    /// The same decision for both directions of a connection.
    fn concerns_me(&self, order: &Order) -> bool {
        Rng::new(order.salt).fork(self.number + 1).chance(order.percent)
    }

    /// Ends the caller's side. Nothing more moves towards the callee, not even the end of the stream.
    async fn vanish(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        if self.up {
            sleep(GHOST).await;
        } else {
            self.to.shutdown().await?;
            while self.from.read(buffer).await? > 0 {}
        }
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    /// Waits as long as the weather delays `bytes` bytes.
    async fn pass(&mut self, bytes: usize) {
        loop {
            let weather = *self.weather.borrow_and_update();
            match weather {
                Weather::Clear | Weather::Cut => return,
                Weather::Delay(delay) => return sleep(delay).await,
                Weather::Throttle(rate) => return sleep(Duration::from_secs_f64(bytes as f64 / f64::from(rate))).await,
                Weather::Dark => {
                    if self.weather.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
