//! Control of the relay as a pure state machine: no I/O, no clock, one [`Action`] at a time.
//!
//! The driver in [`super`] executes the actions and returns the outcomes. The model check in `machine_tests.rs` does
//! the same, in every order that two gateways, a crash and a lossy network allow.

use crate::broker::Mark;
use crate::event::{Event, Events};
use std::collections::VecDeque;

/// Events per read of the outbox; PocketBase sends fewer if the events are large.
const PAGE: u16 = 500;
/// Fingerprint of a mark whose event no longer existed.
const NO_FINGERPRINT: u64 = 0;

#[derive(Clone, Debug)]
pub enum Input {
    /// Events posted by a hook.
    Posted(Events),
    /// Time to read the outbox and to confirm.
    Tick,
    /// Outcome of the last action.
    Mark(Mark),
    Page(Events),
    Published,
    /// A channel already holds other content under the number of an event.
    Conflict,
    /// PocketBase was told. `more`: PocketBase has to trim more rows than one call allows, so the call is repeated.
    Confirmed {
        more: bool,
    },
    /// The last action failed. No event is lost: the next tick starts again.
    Failed,
}

/// An action for the driver. The outcome is the next input.
#[derive(Clone, Debug, Hash, PartialEq)]
pub enum Action {
    /// Read the shared mark, or set the mark to this value if unset. Answered by [`Input::Mark`].
    Begin(Mark),
    /// Read the outbox. Answered by [`Input::Page`].
    Read { after: u64, limit: u16 },
    /// Publish the events in this order. The shared mark may move to `mark` at once, after the events. Answered by
    /// [`Input::Published`] or [`Input::Conflict`].
    Publish { run: Vec<Event>, mark: Mark },
    /// Move the shared mark forward within the generation. Answered by [`Input::Mark`].
    Advance(Mark),
    /// Begin the next generation, unless another gateway already has. Answered by [`Input::Mark`].
    Restart(Mark),
    /// Tell PocketBase that all events up to this number are published. Answered by [`Input::Confirmed`].
    Confirm(u64),
}

/// An occurrence for metrics and logs.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub enum Note {
    /// Number of posted or read events that had been published before.
    Repeats(usize),
    /// Number of published events. `pulled`: read from the outbox, not posted.
    Published { count: usize, pulled: bool },
    /// A gap before a posted event; the outbox is read.
    Gap,
    /// The outbox does not continue the outbox followed so far: PocketBase was restored from a backup, or rows were
    /// deleted. All channels start a new epoch, and clients reload.
    Diverged,
}

/// The awaited outcome.
#[derive(Clone, Debug, Hash, PartialEq)]
enum Awaited {
    Nothing,
    /// The newest event, at the start or after a divergence: following begins after this event. `found`: the read asks
    /// for the number of the newest event, known from an earlier page.
    Newest {
        found: bool,
    },
    /// The shared mark. `pull`: a read of the outbox follows.
    Mark {
        pull: bool,
    },
    /// A page of the outbox. `anchored`: the page begins after the event at the mark, which was compared just before.
    Page {
        anchored: bool,
    },
    /// A publish. The mark then moves to this value.
    Publish(Mark),
    Confirm,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
enum Job {
    Idle,
    /// Publish posted events. `refreshed`: the shared mark was read during this job.
    Post {
        refreshed: bool,
    },
    /// Read the outbox to the end. `confirm`: then confirm.
    Pull {
        confirm: bool,
    },
}

#[derive(Clone, Debug, Hash)]
pub struct Machine {
    /// The newest known mark: all events up to the mark are published. `None`: not known yet.
    at: Option<Mark>,
    confirmed: u64,
    job: Job,
    awaited: Awaited,
    /// Ascending events, each to be published after all earlier events.
    queue: VecDeque<Event>,
    /// The run of PocketBase that the queue comes from.
    boot: u64,
    /// Number of the newest event at the last read of the outbox.
    last: u64,
    notes: Vec<Note>,
}

impl Default for Machine {
    fn default() -> Self {
        let (queue, notes) = (VecDeque::new(), Vec::new());
        Self { at: None, confirmed: 0, job: Job::Idle, awaited: Awaited::Nothing, queue, boot: 0, last: 0, notes }
    }
}

impl Machine {
    /// The newest known mark; `None` until the mark is first known.
    pub fn mark(&self) -> Option<Mark> {
        self.at
    }

    /// True if no outcome is awaited: posted events and ticks are allowed.
    pub fn is_idle(&self) -> bool {
        self.awaited == Awaited::Nothing
    }

    /// Takes the notes since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Takes the next input and returns the next action, or `None` if idle. Posted events and ticks are allowed while
    /// idle only.
    pub fn step(&mut self, input: Input) -> Option<Action> {
        let awaited = std::mem::replace(&mut self.awaited, Awaited::Nothing);
        match (awaited, input) {
            (Awaited::Nothing, Input::Posted(posted)) => self.posted(posted),
            (Awaited::Nothing, Input::Tick) => self.tick(),
            (Awaited::Newest { found }, Input::Page(page)) => self.newest(found, page),
            (Awaited::Mark { pull }, Input::Mark(mark)) => self.mark_read(pull, mark),
            (Awaited::Page { anchored }, Input::Page(page)) => self.page(anchored, page),
            (Awaited::Publish(mark), Input::Published) => {
                // After the publish: a crash in between publishes the run again, and the broker drops the repeats by
                // number.
                self.wait(Awaited::Mark { pull: false }, Action::Advance(mark))
            }
            (Awaited::Publish(_), Input::Conflict) => self.diverged(),
            (Awaited::Confirm, Input::Confirmed { more }) => {
                if !more {
                    self.confirmed = self.at.map_or(0, |at| at.seq);
                }
                self.rest()
            }
            _ => self.rest(),
        }
    }

    fn wait(&mut self, awaited: Awaited, action: Action) -> Option<Action> {
        self.awaited = awaited;
        Some(action)
    }

    fn rest(&mut self) -> Option<Action> {
        self.job = Job::Idle;
        self.queue.clear();
        None
    }

    fn posted(&mut self, posted: Events) -> Option<Action> {
        // Before the mark is known, posted events are left to a later read of the outbox.
        self.at?;
        self.job = Job::Post { refreshed: false };
        (self.queue, self.boot) = (posted.events.into(), posted.boot);
        self.proceed()
    }

    fn tick(&mut self) -> Option<Action> {
        self.job = Job::Pull { confirm: true };
        match self.at {
            Some(at) => self.wait(Awaited::Mark { pull: true }, Action::Begin(at)),
            None => self.wait(Awaited::Newest { found: false }, Action::Read { after: 0, limit: 1 }),
        }
    }

    /// Sets the mark to the newest event. Clients load earlier records from PocketBase.
    fn newest(&mut self, found: bool, page: Events) -> Option<Action> {
        let newest = match page.events.first() {
            Some(event) if found || event.seq == page.last => (event.seq, event.fingerprint()),
            // The oldest event: the newest is read next, by number.
            Some(_) => {
                let action = Action::Read { after: page.last.saturating_sub(1), limit: 1 };
                return self.wait(Awaited::Newest { found: true }, action);
            }
            // The outbox has no rows: nothing was ever written, or all rows were deleted.
            None => (page.last, NO_FINGERPRINT),
        };
        let (generation, (seq, fingerprint)) = (self.at.map_or(0, |at| at.generation + 1), newest);
        let mark = Mark { generation, seq, fingerprint, boot: page.boot };
        let action = if self.at.is_some() { Action::Restart(mark) } else { Action::Begin(mark) };
        self.wait(Awaited::Mark { pull: true }, action)
    }

    /// Takes the shared mark.
    fn mark_read(&mut self, pull: bool, mark: Mark) -> Option<Action> {
        let known = self.at.replace(mark);
        // In another generation, the queue may hold events of the former outbox.
        let other = known.is_none_or(|known| known.generation != mark.generation);
        if let (Some(at), Some(known)) = (&mut self.at, known)
            && *at == (Mark { boot: at.boot, ..known })
        {
            // The shared mark may name an earlier run of PocketBase. This gateway has compared the outbox in the run
            // that `known` names.
            at.boot = known.boot;
        }
        if pull || other {
            return self.pull(matches!(self.job, Job::Pull { confirm: true }));
        }
        if let Job::Post { refreshed } = &mut self.job {
            *refreshed = true;
        }
        self.proceed()
    }

    /// Publishes the queued events that continue the mark; otherwise looks for missing events; otherwise ends the job.
    fn proceed(&mut self) -> Option<Action> {
        let at = self.at?;
        if !self.queue.is_empty() && self.boot != at.boot {
            // Another run of PocketBase, possibly with other data: the outbox is compared first.
            return self.pull(false);
        }
        let before = self.queue.len();
        while self.queue.front().is_some_and(|event| event.seq <= at.seq) {
            self.queue.pop_front();
        }
        if self.queue.len() < before {
            self.notes.push(Note::Repeats(before - self.queue.len()));
        }
        let count = self.queue.iter().zip(at.seq + 1..).take_while(|(event, seq)| event.seq == *seq).count();
        if count > 0 {
            let run: Vec<Event> = self.queue.drain(..count).collect();
            let last = &run[count - 1];
            let mark = Mark { seq: last.seq, fingerprint: last.fingerprint(), ..at };
            self.notes.push(Note::Published { count, pulled: matches!(self.job, Job::Pull { .. }) });
            return self.wait(Awaited::Publish(mark), Action::Publish { run, mark });
        }
        match self.job {
            // Usually, another gateway has published the missing events.
            Job::Post { refreshed: false } if !self.queue.is_empty() => {
                self.wait(Awaited::Mark { pull: false }, Action::Begin(at))
            }
            Job::Post { .. } if !self.queue.is_empty() => {
                self.notes.push(Note::Gap);
                self.pull(false)
            }
            Job::Pull { confirm } if at.seq < self.last => self.pull(confirm),
            Job::Pull { confirm: true } if at.seq > self.confirmed => {
                self.wait(Awaited::Confirm, Action::Confirm(at.seq))
            }
            _ => self.rest(),
        }
    }

    fn diverged(&mut self) -> Option<Action> {
        self.notes.push(Note::Diverged);
        self.queue.clear();
        self.wait(Awaited::Newest { found: false }, Action::Read { after: 0, limit: 1 })
    }

    /// Reads the outbox from the event at the mark on, to verify that the outbox is still the same.
    fn pull(&mut self, confirm: bool) -> Option<Action> {
        self.job = Job::Pull { confirm };
        self.queue.clear();
        let after = self.at?.seq.saturating_sub(1);
        self.wait(Awaited::Page { anchored: false }, Action::Read { after, limit: PAGE })
    }

    fn page(&mut self, anchored: bool, page: Events) -> Option<Action> {
        let at = self.at?;
        if !continues(at, anchored, &page) {
            return self.diverged();
        }
        self.at = Some(Mark { boot: page.boot, ..at });
        self.last = page.last;
        (self.queue, self.boot) = (page.events.into(), page.boot);
        self.queue.retain(|event| event.seq > at.seq);
        if !self.queue.is_empty() || at.seq >= self.last {
            return self.proceed();
        }
        if anchored {
            // An empty page below `last` is a temporary state: the next tick reads again.
            return self.rest();
        }
        // The event at the mark is so large that the page has no further events.
        self.wait(Awaited::Page { anchored: true }, Action::Read { after: at.seq, limit: PAGE })
    }
}

/// Whether the page continues from the mark: the event at the mark is the published event, and no later event is
/// missing.
fn continues(at: Mark, anchored: bool, page: &Events) -> bool {
    let begins_at = |seq: u64| page.events.iter().zip(seq..).all(|(event, seq)| event.seq == seq);
    if at.seq == 0 || anchored {
        return begins_at(at.seq + 1);
    }
    match page.events.first() {
        Some(first) if first.seq == at.seq => {
            begins_at(at.seq) && (at.fingerprint == NO_FINGERPRINT || first.fingerprint() == at.fingerprint)
        }
        // Without the event at the mark, which is allowed if the event was missing when the mark was set.
        _ => at.fingerprint == NO_FINGERPRINT && page.last >= at.seq && begins_at(at.seq + 1),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
