//! Model check of two gateways, a broker and PocketBase's outbox, in every possible order within a budget of writes,
//! posts, ticks, failures, crashes and one restore from a backup. Each step of an action is atomic, as in Redis and in
//! PocketBase; a publish of several events can be interrupted between any two events.

use super::*;
use crate::event::Completeness;
use crate::protocol::Payload;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Maximum number of each occurrence. All combinations and orders are explored.
#[derive(Clone, Copy, Debug, Hash)]
struct Budget {
    writes: u8,
    posts: u8,
    ticks: u8,
    failures: u8,
    crashes: u8,
    restores: u8,
    broker_losses: u8,
}

/// An outbox: for each event, from number 1 on, the run of PocketBase that wrote the event.
type Log = Vec<u8>;

#[derive(Clone, Debug, Hash)]
struct World {
    log: Log,
    /// The outbox before the restore; posts from this outbox may still arrive.
    former: Option<Log>,
    boot: u8,
    broker: Broker,
    nodes: [Node; 2],
    left: Budget,
}

#[derive(Clone, Debug, Default, Hash)]
struct Broker {
    mark: Option<Mark>,
    /// Mark at the start of the generation.
    start: u64,
    /// Newest event published before the broker lost its data: clients have loaded these events since.
    excused: u64,
    /// Events of the generation per channel: number and run.
    channels: [Vec<(u64, u8)>; 2],
}

#[derive(Clone, Debug, Default, Hash)]
struct Node {
    machine: Machine,
    /// The action in progress; for a publish, with the remaining events.
    action: Option<Action>,
    /// The node's generation.
    generation: u64,
}

fn channel(seq: u64) -> usize {
    (seq % 2) as usize
}

fn event(seq: u64, run: u8) -> Event {
    let data = Payload::parse(&format!("\"{seq} of {run}\"")).unwrap();
    let channels = vec![channel(seq).to_string()];
    Event { seq, at: 0, channels, data, access: None, updates: None, completeness: Completeness::Whole, dropped: 0 }
}

fn run_of(event: &Event) -> u8 {
    let text = std::str::from_utf8(event.data.as_bytes()).unwrap();
    text.trim_matches('"').rsplit(' ').next().unwrap().parse().unwrap()
}

fn page(log: &Log, boot: u8, after: u64, limit: usize) -> Events {
    let events =
        (1..).zip(log).filter(|(seq, _)| *seq > after).take(limit).map(|(seq, run)| event(seq, *run)).collect();
    Events { events, last: log.len() as u64, boot: boot.into(), ..Events::default() }
}

impl Broker {
    fn begin(&mut self, mark: Mark) -> Mark {
        if self.mark.is_none() {
            (self.mark, self.start) = (Some(mark), mark.seq);
        }
        self.mark.unwrap()
    }

    fn advance(&mut self, mark: Mark) -> Mark {
        let at = self.begin(mark);
        if at.generation == mark.generation && at.seq < mark.seq {
            self.mark = Some(mark);
        }
        self.mark.unwrap()
    }

    fn restart(&mut self, mark: Mark) -> Mark {
        if self.mark.is_some_and(|at| at.generation < mark.generation) {
            *self = Self { mark: Some(mark), start: mark.seq, excused: 0, channels: Default::default() };
        }
        self.begin(mark)
    }

    /// Publishes one event, unless the event is a repeat. Returns a refusal: also for a node of a former generation.
    fn publish(&mut self, generation: u64, event: &Event) -> Option<Input> {
        if self.mark.is_some_and(|at| at.generation > generation) {
            return Some(Input::Failed);
        }
        let (channel, new) = (&mut self.channels[channel(event.seq)], (event.seq, run_of(event)));
        match channel.last() {
            Some(last) if last.0 == new.0 && last.1 != new.1 => return Some(Input::Conflict),
            Some(last) if last.0 >= new.0 => {}
            _ => channel.push(new),
        }
        None
    }

    fn forget(&mut self) {
        let newest = self.channels.iter().flatten().map(|(seq, _)| *seq).max().unwrap_or(0);
        *self = Self { excused: newest.max(self.start).max(self.excused), ..Self::default() };
    }

    /// Events up to this number may be missing in the channels.
    fn base(&self) -> u64 {
        self.start.max(self.excused)
    }
}

impl World {
    fn new(left: Budget) -> Self {
        let nodes = Default::default();
        Self { log: Vec::new(), former: None, boot: 1, broker: Broker::default(), nodes, left }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let node = &mut self.nodes[node];
        node.action = node.machine.step(input);
        node.machine.notes();
    }

    /// One atomic step of a node's action; `None` while a publish has further events.
    fn outcome(&mut self, node: usize) -> Option<Input> {
        let Node { action, generation, .. } = &mut self.nodes[node];
        let mark = match action.as_mut()? {
            Action::Read { after, limit } => {
                return Some(Input::Page(page(&self.log, self.boot, *after, usize::from(*limit))));
            }
            Action::Confirm(_) => return Some(Input::Confirmed { more: false }),
            Action::Publish { run, .. } => {
                if let Some(refused) = self.broker.publish(*generation, &run[0]) {
                    return Some(refused);
                }
                run.remove(0);
                return run.is_empty().then_some(Input::Published);
            }
            Action::Begin(mark) => self.broker.begin(*mark),
            Action::Advance(mark) => self.broker.advance(*mark),
            Action::Restart(mark) => self.broker.restart(*mark),
        };
        *generation = mark.generation;
        Some(Input::Mark(mark))
    }

    fn step(&mut self, node: usize) {
        if let Some(outcome) = self.outcome(node) {
            self.tell(node, outcome);
        }
    }

    /// All possible next worlds.
    fn next(&self) -> Vec<World> {
        let mut worlds = Vec::new();
        let mut may = |allowed: bool, change: &dyn Fn(&mut World)| {
            if allowed {
                let mut world = self.clone();
                change(&mut world);
                worlds.push(world);
            }
        };
        may(self.left.writes > 0, &|world| {
            world.left.writes -= 1;
            world.log.push(world.boot);
        });
        for keep in 0..self.log.len() {
            may(self.left.restores > 0, &|world| {
                world.left.restores -= 1;
                world.former = Some(world.log.clone());
                world.log.truncate(keep);
                world.boot += 1;
            });
        }
        // Redis restarted without data.
        may(self.left.broker_losses > 0 && self.broker.mark.is_some(), &|world| {
            world.left.broker_losses -= 1;
            world.broker.forget();
        });
        for node in 0..2 {
            let idle = self.nodes[node].action.is_none();
            may(idle && self.left.ticks > 0, &|world| {
                world.left.ticks -= 1;
                world.tell(node, Input::Tick);
            });
            for (log, boot) in [(Some(&self.log), self.boot), (self.former.as_ref(), self.boot - 1)] {
                let length = log.map_or(0, Vec::len);
                for from in 0..length {
                    for count in 1..=length - from {
                        may(idle && self.left.posts > 0, &|world| {
                            world.left.posts -= 1;
                            let log =
                                if boot == world.boot { world.log.clone() } else { world.former.clone().unwrap() };
                            world.tell(node, Input::Posted(page(&log, boot, from as u64, count)));
                        });
                    }
                }
            }
            may(!idle, &|world| world.step(node));
            may(!idle && self.left.failures > 0, &|world| {
                world.left.failures -= 1;
                world.tell(node, Input::Failed);
            });
            // The step was done, and the answer was lost.
            may(!idle && self.left.failures > 0, &|world| {
                world.left.failures -= 1;
                let _ = world.outcome(node);
                world.tell(node, Input::Failed);
            });
            may(self.left.crashes > 0, &|world| {
                world.left.crashes -= 1;
                world.nodes[node] = Node::default();
            });
        }
        worlds
    }

    /// Checks the invariants of every world.
    fn check(&self) {
        let Some(mark) = self.broker.mark else { return };
        for (index, had) in self.broker.channels.iter().enumerate() {
            assert!(had.windows(2).all(|pair| pair[0].0 < pair[1].0), "order or repeat: {self:#?}");
            if self.former.is_some() {
                continue;
            }
            let had: Vec<u64> = had.iter().map(|(seq, _)| *seq).filter(|seq| *seq > self.broker.base()).collect();
            let due = |upto: u64| (self.broker.base() + 1..=upto).filter(|seq| channel(*seq) == index);
            assert!(due(had.last().copied().unwrap_or(0)).eq(had.iter().copied()), "a hole: {self:#?}");
            assert!(due(mark.seq).count() <= had.len(), "the mark is ahead of the published events: {self:#?}");
        }
    }

    /// Finishes all actions, lets a gateway read the outbox, and checks that the channels hold the outbox's events.
    fn check_at_rest(&self) {
        let mut world = self.clone();
        for node in [1, 0, 0, 1, 0, 0] {
            while world.nodes[node].action.is_some() {
                world.step(node);
                world.check();
            }
            world.tell(node, Input::Tick);
        }
        for (index, had) in world.broker.channels.iter().enumerate() {
            let due = (1..).zip(world.log.iter().copied()).filter(|(seq, _)| channel(*seq) == index);
            let due: Vec<(u64, u8)> = due.filter(|(seq, _)| *seq > world.broker.base()).collect();
            let had: Vec<(u64, u8)> = had.iter().copied().filter(|(seq, _)| *seq > world.broker.base()).collect();
            assert_eq!(had, due, "differs from the outbox: {self:#?}\nin the end: {world:#?}");
        }
    }
}

/// Explores all reachable worlds, and returns their number.
fn explore(budget: Budget) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(budget)];
    while let Some(world) = open.pop() {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        if !seen.insert(hasher.finish()) {
            continue;
        }
        world.check();
        let next = world.next();
        if world.left.writes == 0 {
            world.check_at_rest();
        }
        open.extend(next);
    }
    println!("{} worlds for {budget:?}", seen.len());
    seen.len()
}

const NONE: Budget = Budget { writes: 0, posts: 0, ticks: 0, failures: 0, crashes: 0, restores: 0, broker_losses: 0 };

#[test]
fn two_gateways_publish_everything_once_and_in_order() {
    assert!(explore(Budget { writes: 3, posts: 3, ticks: 2, ..NONE }) > 10_000);
}

#[test]
fn also_through_failures_and_crashes() {
    assert!(explore(Budget { writes: 2, posts: 2, ticks: 2, failures: 1, crashes: 1, ..NONE }) > 10_000);
}

#[test]
fn also_when_the_broker_forgets() {
    assert!(explore(Budget { writes: 2, posts: 2, ticks: 3, broker_losses: 1, ..NONE }) > 10_000);
}

#[test]
fn a_restored_outbox_is_never_mixed_with_the_former() {
    assert!(explore(Budget { writes: 3, posts: 2, ticks: 3, restores: 1, ..NONE }) > 10_000);
}

#[test]
fn an_outbox_that_is_too_long_to_be_trimmed_at_once_is_confirmed_again() {
    let (mark, mut machine, mut answers, mut confirmed) = (Mark::default(), Machine::default(), vec![false, true], 0);
    for _ in 0..4 {
        let mut next = machine.step(Input::Tick);
        while let Some(action) = next {
            let outcome = match action {
                Action::Begin(_) | Action::Advance(_) | Action::Restart(_) => Input::Mark(Mark { seq: 1, ..mark }),
                Action::Read { after, limit } => Input::Page(page(&vec![0], 0, after, usize::from(limit))),
                Action::Publish { .. } => Input::Published,
                Action::Confirm(seq) => {
                    assert_eq!(seq, 1);
                    confirmed += 1;
                    Input::Confirmed { more: answers.pop().expect("no needless call") }
                }
            };
            next = machine.step(outcome);
        }
    }
    assert_eq!(confirmed, 2);
}
