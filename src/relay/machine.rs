//! What the relay does next, as a pure state machine: no I/O, no clock, one [`Action`] at a time.
//!
//! The driver in [`super`] carries actions out and hands back their outcomes; the model check in
//! `machine_tests.rs` does the same in every order that two gateways, a crash and a lossy network allow.

use crate::broker::Mark;
use crate::event::{Event, Events};
use std::collections::VecDeque;

/// Events read from the outbox at once; PocketBase sends fewer where they are large.
const PAGE: u16 = 500;
/// Of a mark at which there was no event any more.
const NO_FINGERPRINT: u64 = 0;

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A hook has posted these.
    Posted(Events),
    /// Time to look at the outbox and to confirm.
    Tick,
    /// The last action succeeded; its outcome.
    Mark(Mark),
    Page(Events),
    Published,
    /// A channel holds something else under a number that was to be published.
    Conflict,
    /// PocketBase knows; `more`: it has more to trim than one call may, and has to be told again.
    Confirmed {
        more: bool,
    },
    /// The last action failed. Nothing is lost: the next tick begins anew.
    Failed,
}

/// What is to be done, one at a time; the outcome is the next input.
#[derive(Clone, Debug, Hash, PartialEq)]
pub enum Action {
    /// Read the shared mark, set to this one where there is none. Answered by [`Input::Mark`].
    Begin(Mark),
    /// Read the outbox. Answered by [`Input::Page`].
    Read { after: u64, limit: u16 },
    /// Publish these, in this order. Answered by [`Input::Published`] or [`Input::Conflict`].
    Publish(Vec<Event>),
    /// Move the shared mark forward within its generation. Answered by [`Input::Mark`].
    Advance(Mark),
    /// Begin the next generation, unless another gateway already has. Answered by [`Input::Mark`].
    Restart(Mark),
    /// Tell PocketBase that everything before this has been published. Answered by [`Input::Confirmed`].
    Confirm(u64),
}

/// What happened that people or metrics should know of.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub enum Note {
    /// So many posted or read events had been published before.
    Repeats(usize),
    /// Published, by where they came from.
    Published { count: usize, pulled: bool },
    /// The outbox is read because an event before a posted one is missing.
    Gap,
    /// The outbox is not the one that was followed so far: PocketBase was restored from a backup, or rows are
    /// gone. All channels begin anew, and clients reload.
    Diverged,
}

#[derive(Clone, Debug, Hash, PartialEq)]
enum Waiting {
    Nothing,
    /// For the newest event at the very start, or after a divergence: where following begins. `found`: it was
    /// asked for by its number, which the first such answer tells.
    Newest {
        found: bool,
    },
    /// For the shared mark; `pull`: and read the outbox then.
    Mark {
        pull: bool,
    },
    /// For the outbox; `anchored`: behind the event at the mark, which was compared just now.
    Page {
        anchored: bool,
    },
    /// For a publish; then the mark moves here.
    Publish(Mark),
    Confirm,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
enum Job {
    Idle,
    /// What was posted; `refreshed`: whether the shared mark was looked at for it.
    Post {
        refreshed: bool,
    },
    /// The outbox, to its end; `confirm`: and confirm then.
    Pull {
        confirm: bool,
    },
}

#[derive(Clone, Debug, Hash)]
pub struct Machine {
    /// Everything up to here has been published, as far as this gateway knows. `None`: not known yet.
    at: Option<Mark>,
    confirmed: u64,
    job: Job,
    waiting: Waiting,
    /// Ascending events that may be published once what is before them has been.
    queue: VecDeque<Event>,
    /// The run of PocketBase that the queue comes from.
    boot: u64,
    /// The newest event that the outbox had when it was last read.
    last: u64,
    notes: Vec<Note>,
}

impl Default for Machine {
    fn default() -> Self {
        let (queue, notes) = (VecDeque::new(), Vec::new());
        Self { at: None, confirmed: 0, job: Job::Idle, waiting: Waiting::Nothing, queue, boot: 0, last: 0, notes }
    }
}

impl Machine {
    /// Where publishing stands; `None` until that is settled for the first time.
    pub fn mark(&self) -> Option<Mark> {
        self.at
    }

    /// Whether it waits for no outcome, so that posted events and ticks may come.
    pub fn is_idle(&self) -> bool {
        self.waiting == Waiting::Nothing
    }

    /// What has happened since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Takes the next input; returns what to do, or `None` when there is nothing. Posted events and ticks must
    /// come only while it is idle.
    pub fn step(&mut self, input: Input) -> Option<Action> {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        match (waiting, input) {
            (Waiting::Nothing, Input::Posted(posted)) => self.posted(posted),
            (Waiting::Nothing, Input::Tick) => self.tick(),
            (Waiting::Newest { found }, Input::Page(page)) => self.newest(found, page),
            (Waiting::Mark { pull }, Input::Mark(mark)) => self.settled(pull, mark),
            (Waiting::Page { anchored }, Input::Page(page)) => self.page(anchored, page),
            (Waiting::Publish(mark), Input::Published) => {
                // Only now: a crash in between publishes the run once more, which the broker drops by its numbers.
                self.wait(Waiting::Mark { pull: false }, Action::Advance(mark))
            }
            (Waiting::Publish(_), Input::Conflict) => self.diverged(),
            (Waiting::Confirm, Input::Confirmed { more }) => {
                if !more {
                    self.confirmed = self.at.map_or(0, |at| at.seq);
                }
                self.rest()
            }
            _ => self.rest(),
        }
    }

    fn wait(&mut self, waiting: Waiting, action: Action) -> Option<Action> {
        self.waiting = waiting;
        Some(action)
    }

    fn rest(&mut self) -> Option<Action> {
        self.job = Job::Idle;
        self.queue.clear();
        None
    }

    fn posted(&mut self, posted: Events) -> Option<Action> {
        // Before following has begun, what is posted is in the outbox, which is read then.
        self.at?;
        self.job = Job::Post { refreshed: false };
        (self.queue, self.boot) = (posted.events.into(), posted.boot);
        self.proceed()
    }

    fn tick(&mut self) -> Option<Action> {
        self.job = Job::Pull { confirm: true };
        match self.at {
            Some(at) => self.wait(Waiting::Mark { pull: true }, Action::Begin(at)),
            None => self.wait(Waiting::Newest { found: false }, Action::Read { after: 0, limit: 1 }),
        }
    }

    /// Settles where to begin: behind the newest event. What was before it, clients load from PocketBase.
    fn newest(&mut self, found: bool, page: Events) -> Option<Action> {
        let newest = match page.events.first() {
            Some(event) if found || event.seq == page.last => (event.seq, event.fingerprint()),
            // That was the oldest.
            Some(_) => {
                let action = Action::Read { after: page.last.saturating_sub(1), limit: 1 };
                return self.wait(Waiting::Newest { found: true }, action);
            }
            // Nothing was ever written, or all of it was deleted.
            None => (page.last, NO_FINGERPRINT),
        };
        let (generation, (seq, fingerprint)) = (self.at.map_or(0, |at| at.generation + 1), newest);
        let mark = Mark { generation, seq, fingerprint, boot: page.boot };
        let action = if self.at.is_some() { Action::Restart(mark) } else { Action::Begin(mark) };
        self.wait(Waiting::Mark { pull: true }, action)
    }

    /// The shared mark is known.
    fn settled(&mut self, pull: bool, mark: Mark) -> Option<Action> {
        let known = self.at.replace(mark);
        // What waits here may belong to the outbox as it was before.
        let other = known.is_none_or(|known| known.generation != mark.generation);
        if let (Some(at), Some(known)) = (&mut self.at, known)
            && *at == (Mark { boot: at.boot, ..known })
        {
            // The others need not have compared it with this run of PocketBase; this gateway has.
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

    /// Publishes what continues the mark; else finds out what is missing; else ends the job.
    fn proceed(&mut self) -> Option<Action> {
        let at = self.at?;
        if !self.queue.is_empty() && self.boot != at.boot {
            // Another run of PocketBase, perhaps on other data: first compare.
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
            return self.wait(Waiting::Publish(mark), Action::Publish(run));
        }
        match self.job {
            // Most often another gateway has published what is missing here.
            Job::Post { refreshed: false } if !self.queue.is_empty() => {
                self.wait(Waiting::Mark { pull: false }, Action::Begin(at))
            }
            Job::Post { .. } if !self.queue.is_empty() => {
                self.notes.push(Note::Gap);
                self.pull(false)
            }
            Job::Pull { confirm } if at.seq < self.last => self.pull(confirm),
            Job::Pull { confirm: true } if at.seq > self.confirmed => {
                self.wait(Waiting::Confirm, Action::Confirm(at.seq))
            }
            _ => self.rest(),
        }
    }

    fn diverged(&mut self) -> Option<Action> {
        self.notes.push(Note::Diverged);
        self.queue.clear();
        self.wait(Waiting::Newest { found: false }, Action::Read { after: 0, limit: 1 })
    }

    /// Reads the outbox, from the event at the mark on, to see that it is still the same outbox.
    fn pull(&mut self, confirm: bool) -> Option<Action> {
        self.job = Job::Pull { confirm };
        self.queue.clear();
        let after = self.at?.seq.saturating_sub(1);
        self.wait(Waiting::Page { anchored: false }, Action::Read { after, limit: PAGE })
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
            // Nothing comes although something is there: not for long, and the next tick sees.
            return self.rest();
        }
        // The event at the mark is so large that it came alone.
        self.wait(Waiting::Page { anchored: true }, Action::Read { after: at.seq, limit: PAGE })
    }
}

/// Whether what was read goes on from the mark: the event at it is the one that was published, and none is
/// missing behind it.
fn continues(at: Mark, anchored: bool, page: &Events) -> bool {
    let begins_at = |seq: u64| page.events.iter().zip(seq..).all(|(event, seq)| event.seq == seq);
    if at.seq == 0 || anchored {
        return begins_at(at.seq + 1);
    }
    match page.events.first() {
        Some(first) if first.seq == at.seq => {
            begins_at(at.seq) && (at.fingerprint == NO_FINGERPRINT || first.fingerprint() == at.fingerprint)
        }
        // The event at the mark is gone, as it was when following began.
        _ => at.fingerprint == NO_FINGERPRINT && page.last >= at.seq && begins_at(at.seq + 1),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
