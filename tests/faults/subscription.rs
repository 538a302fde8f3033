//! One client's subscription to one channel: its state, and the log of received publications.

use super::frames::Subscribed;
use super::record::{Before, Log, Position, Reload, Seen, Start, key};
use super::topology::{World, count, lock};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// A client's subscriptions, shared with the run.
pub type Shared = Arc<Mutex<Vec<Subscription>>>;

pub struct Subscription {
    pub log: Log,
    pub state: State,
    pub position: Option<Position>,
    pub last_key: u64,
    pub reload: Reload,
    pub access: Access,
    pub visits: Vec<Visit>,
}

/// The user's access to the room, as far as the writers know.
#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    /// Access from before the run until after it.
    Lasting,
    /// A visitor with a membership.
    Granted,
    /// A visitor whose membership is being removed, is gone, or never existed.
    Withdrawn,
}

/// One membership of a visitor.
pub struct Visit {
    pub membership: String,
    /// Beginning of the visit in the log.
    pub begin: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub enum State {
    /// To be subscribed at this time.
    Out(Instant),
    Asked(u32, Instant),
    In,
    /// The client stays away for a while on purpose.
    Away,
    /// A visitor was refused, and does not ask again before the next visit.
    Refused,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Out(_) => "not subscribed",
            State::Asked(..) => "waiting for an answer",
            State::In => "subscribed",
            State::Away => "away",
            State::Refused => "refused",
        }
    }
}

impl Subscription {
    pub fn new(client: usize, channel: &Arc<str>, state: State, access: Access) -> Self {
        let log = Log { client, channel: Arc::clone(channel), seen: Vec::new() };
        Self { log, state, position: None, last_key: 0, reload: Reload::default(), access, visits: Vec::new() }
    }

    pub fn publication(&mut self, data: &str, offset: u64) {
        let key = key(data.as_bytes());
        self.last_key = key;
        if let Some(position) = &mut self.position {
            position.offset = offset;
        }
        self.log.seen.push(Seen::Publication { key, offset });
    }

    /// Processes a reply like an SDK: stores the reply's position, then hands out its publications, each of which
    /// advances the position. `interrupted_after` is the number of publications handed out before an interruption.
    pub fn subscribed(&mut self, reply: Subscribed<'_>, interrupted_after: Option<usize>, world: &Arc<World>) {
        self.state = State::In;
        let now = Position { epoch: reply.epoch.as_ref().into(), offset: reply.offset };
        let losses = world.losses.load(Ordering::SeqCst);
        lock(&world.epochs).seen(&self.log.channel, &now.epoch, losses);
        if reply.was_recovering != self.position.is_some() {
            world.violation(format!("{}: was_recovering is {}", self.log.channel, reply.was_recovering));
        }
        let before = self.position.replace(now.clone());
        if let Some(since) = before.clone().filter(|_| reply.recovered) {
            count(&world.counts.recovered);
            self.log.seen.push(Seen::Recovered { since: Box::new(since), now: Box::new(now.clone()) });
            for publication in reply.publications.iter().take(interrupted_after.unwrap_or(usize::MAX)) {
                self.publication(publication.data.get(), publication.offset);
                count(&world.counts.deliveries);
            }
            return;
        }
        count(if before.is_some() { &world.counts.unrecovered } else { &world.counts.fresh });
        if !reply.publications.is_empty() {
            world.violation(format!("{}: publications without a recovery", self.log.channel));
        }
        let reload = Reload::default();
        self.reload = reload.clone();
        let instead_of = before.map(|since| Before { since, losses });
        self.log.seen.push(Seen::Start(Box::new(Start { position: now, instead_of, reload: reload.clone() })));
        let world = Arc::clone(world);
        tokio::spawn(async move { reload.done(world.last_seq().await) });
    }

    /// Whether the client has caught up with the channel's last event. For a client without access, whether it knows
    /// about the removal.
    pub fn is_level(&self, last_seq: u64, last_key: u64) -> bool {
        if self.access == Access::Withdrawn {
            return self.state == State::Refused;
        }
        self.state == State::In && (self.last_key == last_key || self.reload.seq().is_some_and(|seq| seq >= last_seq))
    }
}
