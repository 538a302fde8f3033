//! Publishing, and the relays' shared mark.
//!
//! Order across the masters of a cluster: the subscription links to the masters deliver independently, and a master may
//! stand still. A *barrier* ([`Entry::barrier`], an access change) must nevertheless take effect before any later
//! publication. The barriers of a batch are therefore published first, and confirmed, by a replica too where a replica
//! exists; then the rest of the batch goes to all masters at once. Every publication names the position of the newest
//! earlier barrier (about 20 bytes), and a hub behind this position holds the publication back (`hub/barrier.rs`). A
//! batch without a barrier takes no extra round trip.
//!
//! The position is stored with the mark, for gateways that continue from another gateway's mark. The mark only moves
//! after all barriers up to the mark were published.
//!
//! A single Redis names no barriers: one connection delivers everything in order.

use super::scripts::call;
use super::{RedisBroker, link, millis, slots, wire};
use crate::broker::{BrokerError, Entry, Mark, new_epoch};
use crate::channel::CONTROL;
use crate::protocol::Position;
use parking_lot::MutexGuard;
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The shared mark and the newest barrier, as last seen.
#[derive(Default)]
pub struct Known {
    mark: Option<Mark>,
    /// Position of the newest barrier; `None` without a cluster.
    barrier: Option<Position>,
    /// Outbox number of this gateway's last published barrier, within the mark's generation.
    published: u64,
}

impl RedisBroker {
    pub(super) async fn publish_in_order(&self, entries: &[Entry]) -> Result<usize, BrokerError> {
        let fence = self.fence().await?;
        let last_barrier = entries.iter().rfind(|entry| entry.barrier);
        let Some(last) = last_barrier.filter(|_| self.clustered) else {
            return self.publish_at_once(fence, entries.iter(), None).await.map(|(new, _)| new);
        };
        // All entries of the barriers' channel go first, since the entries of a channel have to ascend.
        let (first, rest): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.channel == CONTROL);
        let mut position = redis::cmd("HMGET");
        position.arg(self.keys().position(CONTROL)).arg("offset").arg("epoch");
        let (new, answer) = self.publish_at_once(fence, first.into_iter(), Some(position)).await?;
        let barrier = answer.as_ref().and_then(wire::read_position);
        let barrier = barrier.ok_or_else(|| BrokerError::Corrupt("the position of the access changes".into()))?;
        {
            let mut known = self.known();
            (known.barrier, known.published) = (Some(barrier), last.seq);
        }
        Ok(new + self.publish_at_once(fence, rest.into_iter(), None).await?.0)
    }

    /// Publishes to all nodes concurrently. Returns the number of new entries and the answer to `question`, a command
    /// that follows the last entry.
    async fn publish_at_once(
        &self,
        fence: Option<u64>,
        entries: impl ExactSizeIterator<Item = &Entry>,
        mut question: Option<Cmd>,
    ) -> Result<(usize, Option<Value>), BrokerError> {
        let (count, barrier) = (entries.len(), self.known_barrier());
        let (mut new, mut answer) = (0, None);
        let mut before: HashMap<&str, u64> = HashMap::new();
        let mut commands = Vec::with_capacity(count.min(link::MAX_COMMANDS) + 1);
        let (mut channels, mut bytes) = (Vec::with_capacity(commands.capacity()), 0);
        for (i, entry) in entries.enumerate() {
            let before = before.insert(&entry.channel, entry.seq).unwrap_or(0);
            commands.push(self.publication(entry, before, barrier.as_ref()));
            channels.push(&entry.channel);
            bytes += entry.data.len();
            if commands.len() == link::MAX_COMMANDS || bytes >= link::MAX_BYTES || i + 1 == count {
                let asked = question.take_if(|_| i + 1 == count);
                let is_asked = asked.is_some();
                commands.extend(asked);
                let mut answers = self.nodes.publish(fence, &self.scripts.publish, &commands).await?;
                answer = if is_asked { answers.pop() } else { None };
                for (channel, answer) in channels.drain(..).zip(&answers) {
                    if let Some(kept) = wire::read_number(answer) {
                        self.ledger.note(channel, kept);
                        new += 1;
                    }
                }
                commands.clear();
                bytes = 0;
            }
        }
        Ok((new, answer))
    }

    fn publication(&self, entry: &Entry, before: u64, barrier: Option<&Position>) -> Cmd {
        let keys = [self.keys().position(&entry.channel), self.keys().stream(&entry.channel)];
        let mut command = call(&self.scripts.publish, &keys);
        command.arg(entry.seq).arg(before).arg(entry.data.as_bytes()).arg(new_epoch());
        command.arg(self.retention.size).arg(millis(self.retention.ttl)).arg(self.position_ttl());
        command.arg(self.keys().live(&entry.channel)).arg(self.generation()).arg(entry.at);
        command.arg(self.retention.bytes_of(&entry.channel));
        if let Some(barrier) = barrier.filter(|_| entry.channel != CONTROL) {
            command.arg(wire::barrier(barrier));
        }
        command
    }

    pub(super) async fn begin_at(&self, mark: Mark) -> Result<Mark, BrokerError> {
        let set = self.set_if_missing(mark);
        let mut get = redis::cmd("GET");
        get.arg(self.keys().mark());
        let number = self.nodes.number(self.mark_slot()).await?;
        let answers = self.nodes.run_on(number, &[set, get]).await?;
        self.adopt(number, answers.get(1))
    }

    pub(super) async fn move_mark(
        &self,
        script: &redis::Script,
        mark: Mark,
        barrier: Option<Position>,
    ) -> Result<Mark, BrokerError> {
        let mut command = call(script, &[self.keys().mark()]);
        command.arg(wire::mark(mark, barrier.as_ref()));
        let number = self.nodes.number(self.mark_slot()).await?;
        let answers = self.nodes.call_on(Some(number), script, &[command]).await?;
        self.adopt(number, answers.first())
    }

    /// Connection number for publishing: the connections in use when the mark was last read. Behind a newer connection,
    /// Redis may have lost the data, and other gateways may have continued from a later mark. Publications of this
    /// gateway would then be outdated, and alone in a new history.
    async fn fence(&self) -> Result<Option<u64>, BrokerError> {
        let marked = self.marked.load(Ordering::Acquire);
        let Some(known) = self.known_mark().filter(|_| marked > 0) else { return Ok(None) };
        if self.nodes.number(self.mark_slot()).await? == marked {
            return Ok(Some(marked));
        }
        let now = self.begin_at(known).await?;
        if (now.generation, now.seq) != (known.generation, known.seq) {
            return Err(BrokerError::Unavailable("another gateway has moved the mark meanwhile".into()));
        }
        Ok(Some(self.marked.load(Ordering::Acquire)))
    }

    fn mark_slot(&self) -> u16 {
        slots::of_key(self.keys().mark().as_bytes())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(super) fn known_mark(&self) -> Option<Mark> {
        self.known().mark
    }

    pub(super) fn known_barrier(&self) -> Option<Position> {
        self.known().barrier.clone()
    }

    pub(super) fn set_if_missing(&self, mark: Mark) -> Cmd {
        let mut command = redis::cmd("SETNX");
        command.arg(self.keys().mark()).arg(wire::mark(mark, self.known_barrier().as_ref()));
        command
    }

    /// Joins the generation of the shared mark: channels of older generations start new epochs from now on.
    fn adopt(&self, number: u64, answer: Option<&Value>) -> Result<Mark, BrokerError> {
        let answer = answer.and_then(wire::read_mark);
        let (mark, barrier) = answer.ok_or_else(|| BrokerError::Corrupt("the mark".into()))?;
        self.known().adopt(mark, barrier);
        self.marked.store(number, Ordering::Release);
        if self.generation.swap(mark.generation, Ordering::AcqRel) != mark.generation {
            self.state.gap();
        }
        Ok(mark)
    }
}

impl Known {
    fn adopt(&mut self, mark: Mark, barrier: Option<Position>) {
        if self.mark.is_some_and(|known| known.generation != mark.generation) {
            (self.barrier, self.published) = (barrier, 0);
        } else if barrier.is_some() && mark.seq >= self.published {
            // The gateway that moved the mark knew this gateway's barriers, or had published the same barriers.
            self.barrier = barrier;
        }
        self.mark = Some(mark);
    }
}
