//! WebSocket clients that behave like an SDK: they reconnect after every disconnect, with growing backoff, recover
//! missed publications, and reload from PocketBase after `recovered: false`. Received frames go into one log per
//! channel.

use super::frames::Frame;
use super::record::Position;
use super::subscription::{Access, Shared, State, Subscription};
use super::topology::{Room, World, count, lock};
use crate::harness::rng::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Time limit for the handshake and for the answer to a command, as in the SDKs.
const ANSWER: Duration = Duration::from_secs(6);
/// Longest delay of a ping after its announced time.
const PING_DELAY: Duration = Duration::from_secs(3);
/// Bounds of the reconnect backoff, in milliseconds.
const BACKOFF: (u64, u64) = (100, 3000);
/// Interval of the checks for expired deadlines.
const TICK: Duration = Duration::from_millis(100);
/// Percentage of recoveries interrupted before the application gets every publication: an application's handler fails,
/// or the connection ends while the handler is awaited.
const INTERRUPTED: u64 = 10;
/// Longest absence of a visitor. Visits are short, and the run cannot tell an absent visitor from a stuck one.
const VISITORS_ABSENCE: Duration = Duration::from_secs(5);

pub struct Client {
    number: usize,
    token: String,
    world: Arc<World>,
    rng: Rng,
    /// Used for interruptions only, so that a seed's other decisions do not depend on the number of recoveries.
    interruptions: Rng,
    shared: Shared,
    places: HashMap<Arc<str>, usize>,
    next_id: u32,
    longest_absence: Duration,
    /// Cancelled when the client must not go away on purpose any more.
    settle: CancellationToken,
}

impl Client {
    /// Starts a client of the `number`th user on some of the rooms.
    pub fn start(number: usize, world: &Arc<World>, mut rng: Rng, settle: &CancellationToken) -> Shared {
        let mut rooms: Vec<usize> = (0..world.rooms.len()).collect();
        rng.shuffle(&mut rooms);
        rooms.truncate(2 + rng.below(2));
        let state = State::Out(Instant::now());
        let subscription =
            |room: &usize| Subscription::new(number, &world.rooms[*room].channel, state, Access::Lasting);
        let token = world.users[number % world.users.len()].token.clone();
        Self::live_with((number, token), rooms.iter().map(subscription).collect(), Duration::MAX, world, rng, settle)
    }

    /// Starts a client of a user without rooms; [`super::visits`] grants and withdraws access.
    pub fn visitor(number: usize, token: String, world: &Arc<World>, rng: Rng, settle: &CancellationToken) -> Shared {
        let outside = |room: &Room| Subscription::new(number, &room.channel, State::Refused, Access::Withdrawn);
        Self::live_with(
            (number, token),
            world.rooms.iter().map(outside).collect(),
            VISITORS_ABSENCE,
            world,
            rng,
            settle,
        )
    }

    fn live_with(
        (number, token): (usize, String),
        subscriptions: Vec<Subscription>,
        longest_absence: Duration,
        world: &Arc<World>,
        rng: Rng,
        settle: &CancellationToken,
    ) -> Shared {
        let places = subscriptions.iter().enumerate().map(|(i, it)| (Arc::clone(&it.log.channel), i)).collect();
        let shared = Arc::new(Mutex::new(subscriptions));
        let (world, settle) = (Arc::clone(world), settle.clone());
        let interruptions = rng.fork(1);
        let client = Self {
            number,
            token,
            world,
            rng,
            interruptions,
            shared: Arc::clone(&shared),
            places,
            next_id: 1,
            longest_absence,
            settle,
        };
        tokio::spawn(client.live());
        shared
    }

    async fn live(mut self) {
        let mut attempt = 0;
        loop {
            self.connection(&mut attempt).await;
            self.all(State::Out(Instant::now()));
            let most = (BACKOFF.0 << attempt.min(5)).min(BACKOFF.1);
            attempt += 1;
            sleep(self.rng.millis(BACKOFF.0 / 2..most + 1)).await;
        }
    }

    fn all(&self, state: State) {
        for subscription in lock(&self.shared).iter_mut().filter(|it| it.state != State::Refused) {
            subscription.state = state;
        }
    }

    async fn connection(&mut self, attempt: &mut u32) {
        let url = self.rng.pick(&self.world.websockets).clone();
        let Ok(Ok((mut socket, _))) = timeout(ANSWER, connect_async(url)).await else { return };
        let ended = self.converse(&mut socket, attempt).await;
        // The client is away for a while, after an orderly close or after just the end of the TCP connection.
        if let Err(away) = ended
            && let Some(away) = away
        {
            if self.rng.chance(50) {
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
            }
            drop(socket);
            *attempt = 0;
            self.all(State::Away);
            tokio::select! {
                () = sleep(away) => {}
                () = self.settle.clone().cancelled_owned() => {}
            }
        }
    }

    /// Returns when the connection is no longer usable. The error holds the time to stay away if the client left on
    /// purpose.
    async fn converse(&mut self, socket: &mut Socket, attempt: &mut u32) -> Result<(), Option<Duration>> {
        let id = self.id();
        self.send(socket, json!({"id": id, "connect": {"token": self.token}}).to_string()).await?;
        let (mut asked, mut silence) = (Some(Instant::now()), ANSWER);
        let (mut heard, leave) = (Instant::now(), Instant::now() + self.rng.millis(5_000..150_000));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        heard = Instant::now();
                        for line in text.split('\n').filter(|line| !line.is_empty()) {
                            if line == "{}" {
                                self.send(socket, "{}".into()).await?;
                            } else if let Some(ping) = self.take(line, id)? {
                                (asked, silence, *attempt) = (None, Duration::from_secs(ping) + PING_DELAY, 0);
                                count(&self.world.counts.connects);
                            }
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map_or(1005, |frame| frame.code.into());
                        self.closed(code);
                        return Err(None);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        self.closed(1006);
                        return Err(None);
                    }
                },
                _ = tick.tick() => {
                    let now = Instant::now();
                    if now > heard + silence || asked.is_some_and(|at| now > at + ANSWER) || self.waits_in_vain(now) {
                        self.closed(0);
                        return Err(None);
                    }
                    if asked.is_none() {
                        if now > leave && !self.settle.is_cancelled() {
                            return Err(Some(self.absence()));
                        }
                        self.subscribe(socket, now).await?;
                    }
                }
            }
        }
    }

    /// Draws an absence: mostly short, sometimes longer than the history reaches back.
    fn absence(&mut self) -> Duration {
        let absence = match self.rng.below(100) {
            0..70 => self.rng.millis(50..3_000),
            70..95 => self.rng.millis(3_000..15_000),
            _ => self.rng.millis(30_000..60_000),
        };
        absence.min(self.longest_absence)
    }

    /// Counts a close code; 0 means that the gateway was silent for too long.
    fn closed(&self, code: u16) {
        *lock(&self.world.counts.closes).entry(code).or_default() += 1;
        // SDKs do not reconnect after these codes.
        if matches!(code, 3500..=3999 | 4500..=4999) {
            self.world.violation(format!("client {} was sent away for good with {code}", self.number));
        }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    async fn send(&self, socket: &mut Socket, text: String) -> Result<(), Option<Duration>> {
        match timeout(ANSWER, socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(None),
        }
    }

    fn waits_in_vain(&self, now: Instant) -> bool {
        let subscriptions = lock(&self.shared);
        subscriptions.iter().any(|it| matches!(it.state, State::Asked(_, at) if now > at + ANSWER))
    }

    /// Subscribes to every channel that is due, in one frame.
    async fn subscribe(&mut self, socket: &mut Socket, now: Instant) -> Result<(), Option<Duration>> {
        let mut commands = Vec::new();
        for subscription in lock(&self.shared).iter_mut() {
            if matches!(subscription.state, State::Out(at) if now >= at) {
                self.next_id += 1;
                subscription.state = State::Asked(self.next_id, now);
                let mut request = json!({"channel": &*subscription.log.channel});
                if let Some(Position { epoch, offset }) = &subscription.position {
                    request["recover"] = true.into();
                    request["epoch"] = json!(&**epoch);
                    request["offset"] = json!(offset);
                }
                commands.push(json!({"id": self.next_id, "subscribe": request}).to_string());
            }
        }
        if commands.is_empty() { Ok(()) } else { self.send(socket, commands.join("\n")).await }
    }

    /// Processes one reply or push; returns the ping interval after the reply to `connect`.
    fn take(&mut self, line: &str, connect_id: u32) -> Result<Option<u64>, Option<Duration>> {
        let Ok(frame) = serde_json::from_str::<Frame>(line) else {
            self.world.violation(format!("client {} got an unreadable frame: {line}", self.number));
            return Err(None);
        };
        if let Some(push) = frame.push {
            let Some(&place) = self.places.get(&*push.channel) else {
                self.world.violation(format!("client {} got something of {}", self.number, push.channel));
                return Ok(None);
            };
            let subscription = &mut lock(&self.shared)[place];
            if let Some(publication) = push.publication {
                if subscription.state != State::In {
                    let place = format!("{} offset {}", push.channel, publication.offset);
                    self.world.violation(format!("client {} got {place} while not subscribed", self.number));
                }
                subscription.publication(publication.data.get(), publication.offset);
                count(&self.world.counts.deliveries);
            } else if let Some(unsubscribe) = push.unsubscribe {
                match (unsubscribe.code, subscription.access) {
                    (2500, _) => count(&self.world.counts.insufficient),
                    // Unlike an SDK, a visitor asks once more, to be refused.
                    (2100..=2104, Access::Withdrawn) => count(&self.world.counts.removed),
                    (code, _) => {
                        let what = format!("unsubscribed from {} with {code}", push.channel);
                        self.world.violation(format!("client {} was {what}", self.number));
                    }
                }
                subscription.state = State::Out(Instant::now() + self.rng.millis(0..500));
            }
            return Ok(None);
        }
        if let Some(error) = frame.error {
            let again = State::Out(Instant::now() + self.rng.millis(100..1500));
            let mut subscriptions = lock(&self.shared);
            let asked = |it: &&mut Subscription| matches!(it.state, State::Asked(id, _) if id == frame.id);
            let subscription = subscriptions.iter_mut().find(asked);
            let access = subscription.as_ref().map(|it| it.access);
            let next = match (error.code, access) {
                // Internal error, to be retried.
                (100, _) => again,
                (103, Some(Access::Withdrawn)) => State::Refused,
                // An earlier refusal may be cached for a second.
                (103, Some(Access::Granted)) => again,
                (code, _) => {
                    self.world.violation(format!("client {} got error {code}", self.number));
                    again
                }
            };
            count(if error.code == 103 { &self.world.counts.denials } else { &self.world.counts.refusals });
            if let Some(subscription) = subscription {
                subscription.state = next;
            }
            return if frame.id == connect_id { Err(None) } else { Ok(None) };
        }
        if let Some(reply) = frame.subscribe {
            let mut subscriptions = lock(&self.shared);
            let asked = |it: &&mut Subscription| matches!(it.state, State::Asked(id, _) if id == frame.id);
            let Some(subscription) = subscriptions.iter_mut().find(asked) else {
                self.world.violation(format!("client {} got a reply that nobody waits for", self.number));
                return Ok(None);
            };
            let missed = reply.publications.len();
            let interrupted = missed > 0 && !self.settle.is_cancelled() && self.interruptions.chance(INTERRUPTED);
            let interrupted_after = interrupted.then(|| self.interruptions.below(missed));
            subscription.subscribed(reply, interrupted_after, &self.world);
            if interrupted {
                count(&self.world.counts.interrupted);
                return Err(None);
            }
            return Ok(None);
        }
        Ok(frame.connect.filter(|_| frame.id == connect_id).map(|connected| connected.ping))
    }
}
