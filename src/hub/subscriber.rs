//! A channel's subscribers on this node, grouped by writer and format, and the frames held back for a suspended subscriber.

use crate::connection::{Connection, ConnectionId};
use crate::event::Cause;
use crate::outbox::Outbox;
use crate::outbox::writer::{COUNTED, Delivery, Recipients, WriteTarget, Writer};
use crate::protocol::encode::{self, Push};
use crate::protocol::format::{Format, PerFormat};
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, Publication};
use parking_lot::{Mutex, MutexGuard};
use prometheus::IntCounter;
use std::collections::HashMap;
use std::sync::Arc;

/// Frames held back for one suspended subscription. Past this limit the client is unsubscribed and has to recover.
pub(super) const HELD_MAX: usize = 256;

pub(super) struct Subscriber {
    pub connection: Arc<Connection>,
    /// Same as `connection.outbox`; saves a pointer dereference.
    outbox: Arc<Outbox>,
    /// Offset of the subscribe reply: only later publications are delivered.
    from: u64,
    /// True if the subscriber gets join and leave pushes.
    pub movements: bool,
    /// True if the subscriber gets its own signals.
    pub echo: bool,
    /// Set during a suspension: frames to deliver after the suspension.
    pub held: Option<Box<HeldFrames>>,
}

/// Frames held back during a suspension.
pub(super) struct HeldFrames {
    /// The strongest cause of the suspension so far.
    pub cause: Cause,
    pub frames: Vec<Frame>,
    /// True past [`HELD_MAX`] frames.
    pub overflowed: bool,
}

/// State of a connection's subscription to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    NotSubscribed,
    Subscribed,
    /// An access check is in progress.
    Suspended,
}

impl Subscriber {
    /// A subscriber with its own signals, without join and leave pushes. `from`: offset of the subscribe reply.
    pub fn new(connection: &Arc<Connection>, from: u64) -> Self {
        let (connection, outbox) = (Arc::clone(connection), Arc::clone(&connection.outbox));
        Self { connection, outbox, from, movements: false, echo: true, held: None }
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub fn suspend(&mut self, cause: Cause) {
        let held =
            self.held.get_or_insert_with(|| Box::new(HeldFrames { cause, frames: Vec::new(), overflowed: false }));
        held.cause = held.cause.max(cause);
    }

    /// False for signals of blocked users, for own signals without `echo`, and for all signals during a suspension.
    pub fn wants_signal(&self, sender: Option<&ClientInfo>) -> bool {
        let unwanted = |sender: &ClientInfo| {
            self.connection.blocks(&sender.user) || (!self.echo && sender.client == self.connection.client)
        };
        self.held.is_none() && !sender.is_some_and(unwanted)
    }

    /// Queues the frame, or holds the frame back during a suspension. Returns true if the frame was queued.
    pub fn push(&mut self, frame: &Frame) -> bool {
        match &mut self.held {
            Some(held) => {
                held.take_in(frame);
                false
            }
            None => self.outbox.push(frame.clone()),
        }
    }
}

impl HeldFrames {
    fn take_in(&mut self, frame: &Frame) {
        if self.frames.len() < HELD_MAX && !self.overflowed {
            self.frames.push(frame.clone());
        } else {
            *self = HeldFrames { cause: self.cause, frames: Vec::new(), overflowed: true };
        }
    }
}

type Members = HashMap<ConnectionId, Subscriber, foldhash::fast::RandomState>;

/// All subscribers of a channel. The shares are locked one at a time.
#[derive(Default)]
pub(super) struct Subscribers {
    shares: Vec<Arc<Share>>,
    /// Number of subscribers in all shares.
    count: usize,
}

/// The subscribers of one writer and one format.
struct Share {
    writer: Arc<Writer>,
    format: Format,
    // Held while a batch of frames is pushed into the outboxes.
    members: Mutex<Members>,
    deliveries: IntCounter,
}

impl Share {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock()
    }
}

impl Recipients for Share {
    fn queue(&self, deliveries: &[Delivery], due: &mut Vec<Arc<dyn WriteTarget>>) {
        let (mut delivered, mut queued) = (0, 0);
        let budget = self.writer.budget();
        for member in self.members().values_mut() {
            let from = member.from;
            let frames =
                deliveries.iter().filter(move |delivery| from < delivery.offset).map(|delivery| &delivery.frame);
            if let Some(held) = &mut member.held {
                frames.for_each(|frame| held.take_in(frame));
                continue;
            }
            let (bytes, becomes_due) = member.outbox().push_here(frames.clone());
            if becomes_due {
                due.push(Arc::clone(member.outbox()) as Arc<dyn WriteTarget>);
            }
            if bytes > 0 {
                delivered += frames.count() as u64;
                queued += bytes;
            }
            if queued >= COUNTED {
                budget.add(std::mem::take(&mut queued));
            }
        }
        budget.add(queued);
        self.deliveries.inc_by(delivered);
    }
}

impl Subscribers {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn insert(&mut self, subscriber: Subscriber, deliveries: &IntCounter) {
        let (writer, format) = (subscriber.outbox().writer(), subscriber.outbox().format());
        let is_right = |share: &Arc<Share>| Arc::ptr_eq(&share.writer, writer) && share.format == format;
        let place = self.shares.iter().position(is_right).unwrap_or_else(|| {
            let (writer, deliveries) = (Arc::clone(writer), deliveries.clone());
            self.shares.push(Arc::new(Share { writer, format, members: Mutex::default(), deliveries }));
            self.shares.len() - 1
        });
        if self.shares[place].members().insert(subscriber.connection.id, subscriber).is_none() {
            self.count += 1;
        }
    }

    pub fn remove(&mut self, connection: ConnectionId) -> Option<Subscriber> {
        let found = |(place, share): (usize, &Arc<Share>)| {
            let mut members = share.members();
            members.remove(&connection).map(|removed| (removed, members.is_empty().then_some(place)))
        };
        let (removed, emptied) = self.shares.iter().enumerate().find_map(found)?;
        if let Some(place) = emptied {
            // Without the share, the writer is not woken in vain.
            self.shares.swap_remove(place);
        }
        self.count -= 1;
        Some(removed)
    }

    pub fn drain(&mut self) -> Vec<Subscriber> {
        self.count = 0;
        std::mem::take(&mut self.shares)
            .iter()
            .flat_map(|share| std::mem::take(&mut *share.members()))
            .map(|(_, it)| it)
            .collect()
    }

    pub fn contains(&self, connection: ConnectionId) -> bool {
        self.with(connection, |_| ()).is_some()
    }

    pub fn state_of(&self, connection: ConnectionId) -> SubscriptionState {
        match self.with(connection, |subscriber| subscriber.held.is_some()) {
            None => SubscriptionState::NotSubscribed,
            Some(false) => SubscriptionState::Subscribed,
            Some(true) => SubscriptionState::Suspended,
        }
    }

    /// Calls `look` with the connection's subscriber. `None`: the connection is not subscribed.
    pub fn with<T>(&self, connection: ConnectionId, look: impl FnOnce(&mut Subscriber) -> T) -> Option<T> {
        let mut look = Some(look);
        self.shares.iter().find_map(|share| {
            let mut members = share.members();
            let member = members.get_mut(&connection)?;
            look.take().map(|look| look(member))
        })
    }

    pub fn each(&self, mut visit: impl FnMut(&mut Subscriber)) {
        for share in &self.shares {
            share.members().values_mut().for_each(&mut visit);
        }
    }

    /// Queues a publication with each writer, encoded once per format. When the publication's turn comes, the writer
    /// pushes it to the subscribers of that moment.
    pub fn hand(&self, channel: &str, publication: &Publication) {
        let frames = PerFormat::default();
        for share in &self.shares {
            let frame =
                frames.get(share.format, |format| encode::push(format, channel, &Push::Publication(publication)));
            share.writer.hand(Delivery {
                to: Arc::clone(share) as Arc<dyn Recipients>,
                frame,
                offset: publication.offset,
                at: publication.at,
            });
        }
    }
}
