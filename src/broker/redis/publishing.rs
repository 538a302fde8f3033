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
//! Without a cluster there are no barriers: one connection delivers everything in order. A batch is then one script call,
//! which ends at the first error. Where no replica has to confirm, the same call moves the mark, after the last entry.

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

/// An entry, and the number of the previous entry of the batch in the same channel (0: none).
type Numbered<'a> = (&'a Entry, u64);

impl RedisBroker {
    /// Publishes entries. Returns the number of new entries, and the shared mark after its move to `mark`; `None`: the
    /// mark has not moved.
    pub(super) async fn publish_in_order(
        &self,
        entries: &[Entry],
        mark: Option<Mark>,
    ) -> Result<(usize, Option<Mark>), BrokerError> {
        let fence = self.fence().await?;
        if !self.clustered {
            return self.publish_to_one(fence, entries, mark).await;
        }
        let Some(last) = entries.iter().rfind(|entry| entry.barrier) else {
            return Ok((self.publish_to_all(fence, entries.iter(), None).await?.0, None));
        };
        // All entries of the barriers' channel go first, since the entries of a channel have to ascend.
        let (first, rest): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.channel == CONTROL);
        let mut position = redis::cmd("HMGET");
        position.arg(self.keys().position(CONTROL)).arg("offset").arg("epoch");
        let (new, answer) = self.publish_to_all(fence, first.into_iter(), Some(position)).await?;
        let barrier = answer.as_ref().and_then(wire::read_position);
        let barrier = barrier.ok_or_else(|| BrokerError::Corrupt("the position of the access changes".into()))?;
        {
            let mut known = self.known();
            (known.barrier, known.published) = (Some(barrier), last.seq);
        }
        Ok((new + self.publish_to_all(fence, rest.into_iter(), None).await?.0, None))
    }

    /// Publishes without a cluster: each pipeline is a single script call, and the last call also moves the mark.
    async fn publish_to_one(
        &self,
        fence: Option<u64>,
        entries: &[Entry],
        mark: Option<Mark>,
    ) -> Result<(usize, Option<Mark>), BrokerError> {
        // With sentinels, the mark moves after a replica's confirmation. Without a fence, the answering connection is not
        // known.
        let mark = mark.zip(fence).filter(|_| self.single);
        let (mut new, mut moved) = (0, None);
        let entries = numbered(entries.iter());
        let mut pipelines = pipelines(&entries).peekable();
        while let Some(part) = pipelines.next() {
            let mark = mark.filter(|_| pipelines.peek().is_none());
            let command = self.publications(part, None, mark.map(|(mark, _)| mark));
            let answers = self.nodes.publish(fence, &self.scripts.publish, &[command]).await?;
            let Some(Value::Array(answers)) = answers.first() else { return Err(unreadable()) };
            new += self.note(part, answers);
            if let Some((_, number)) = mark {
                moved = Some(self.adopt(number, answers.get(part.len()))?);
            }
        }
        Ok((new, moved))
    }

    /// Publishes to all nodes of a cluster concurrently, with a script call per entry. Returns the number of new entries
    /// and the answer to `question`, a command that follows the last entry.
    async fn publish_to_all(
        &self,
        fence: Option<u64>,
        entries: impl Iterator<Item = &Entry>,
        mut question: Option<Cmd>,
    ) -> Result<(usize, Option<Value>), BrokerError> {
        let (mut new, mut answer) = (0, None);
        let barrier = self.known_barrier();
        let entries = numbered(entries);
        let mut pipelines = pipelines(&entries).peekable();
        while let Some(part) = pipelines.next() {
            let each = part.iter().map(|entry| self.publications(std::slice::from_ref(entry), barrier.as_ref(), None));
            let mut commands: Vec<Cmd> = each.collect();
            commands.extend(question.take_if(|_| pipelines.peek().is_none()));
            let mut answers = self.nodes.publish(fence, &self.scripts.publish, &commands).await?;
            answer = if answers.len() > part.len() { answers.pop() } else { None };
            for (entry, answer) in part.iter().zip(&answers) {
                let Value::Array(answer) = answer else { return Err(unreadable()) };
                new += self.note(std::slice::from_ref(entry), answer);
            }
        }
        Ok((new, answer))
    }

    /// Notes the sizes of the entries' histories. Returns the number of new entries.
    fn note(&self, entries: &[Numbered], answers: &[Value]) -> usize {
        let kept =
            entries.iter().zip(answers).filter_map(|((entry, _), answer)| Some((entry, wire::read_number(answer)?)));
        kept.map(|(entry, kept)| self.ledger.note(&entry.channel, kept)).count()
    }

    /// A call of the script for these entries, which in a cluster share a slot.
    fn publications(&self, entries: &[Numbered], barrier: Option<&Position>, mark: Option<Mark>) -> Cmd {
        let keys = self.keys();
        let of_entry = |(entry, _): &Numbered| [keys.position(&entry.channel), keys.stream(&entry.channel)];
        let keys_of_call: Vec<String> = entries.iter().flat_map(of_entry).chain(mark.map(|_| keys.mark())).collect();
        let mut command = call(&self.scripts.publish, &keys_of_call);
        command.arg(new_epoch()).arg(self.retention.size).arg(millis(self.retention.ttl)).arg(self.position_ttl());
        command.arg(self.generation()).arg(mark.map(|mark| wire::mark(mark, None)).unwrap_or_default());
        for (entry, before) in entries {
            command.arg(entry.seq).arg(before).arg(entry.data.as_bytes()).arg(keys.live(&entry.channel)).arg(entry.at);
            command.arg(self.retention.bytes_of(&entry.channel));
            let barrier = barrier.filter(|_| entry.channel != CONTROL);
            command.arg(barrier.map(wire::barrier).unwrap_or_default());
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

fn numbered<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Numbered<'a>> {
    let mut last: HashMap<&str, u64> = HashMap::new();
    entries.map(|entry| (entry, last.insert(&entry.channel, entry.seq).unwrap_or(0))).collect()
}

/// Entries in parts, each for one pipeline.
fn pipelines<'a, 'b>(mut entries: &'a [Numbered<'b>]) -> impl Iterator<Item = &'a [Numbered<'b>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = entries.iter().take(link::MAX_COMMANDS).take_while(|(entry, _)| {
            let is_within = bytes < link::MAX_BYTES;
            bytes += entry.data.len();
            is_within
        });
        let (part, rest) = entries.split_at(fit.count());
        entries = rest;
        (!part.is_empty()).then_some(part)
    })
}

fn unreadable() -> BrokerError {
    BrokerError::Corrupt("the answer to publications".into())
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
