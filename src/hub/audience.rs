//! A channel's subscribers on this node, grouped by writer.

use super::Subscriber;
use crate::connection::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::Publication;
use crate::protocol::frame::Frame;
use crate::writer::{self, Delivery, Writer};
use prometheus::IntCounter;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Members = HashMap<ConnectionId, Subscriber, foldhash::fast::RandomState>;

/// All subscribers of a channel. The shares are locked one at a time.
#[derive(Default)]
pub(super) struct Audience {
    shares: Vec<Arc<Share>>,
    /// Number of subscribers in all shares.
    count: usize,
}

/// The subscribers of one writer.
struct Share {
    writer: Arc<Writer>,
    // Held while a frame is pushed into the outboxes: a std Mutex is enough.
    members: Mutex<Members>,
    deliveries: IntCounter,
}

impl Share {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl writer::Audience for Share {
    fn queue(&self, frame: &Frame, offset: u64, due: &mut Vec<Arc<Outbox>>) -> usize {
        let (mut delivered, mut queued) = (0, 0);
        for member in self.members().values_mut().filter(|member| member.from < offset) {
            if let Some(held) = &mut member.held {
                held.take_in(frame);
                continue;
            }
            let (bytes, becomes_due) = member.outbox().push_here(frame);
            if becomes_due {
                due.push(Arc::clone(member.outbox()));
            }
            delivered += u64::from(bytes > 0);
            queued += bytes;
        }
        self.deliveries.inc_by(delivered);
        queued
    }
}

impl Audience {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn insert(&mut self, subscriber: Subscriber, deliveries: &IntCounter) {
        let writer = subscriber.outbox().writer();
        let place = self.shares.iter().position(|share| Arc::ptr_eq(&share.writer, writer)).unwrap_or_else(|| {
            let (writer, deliveries) = (Arc::clone(writer), deliveries.clone());
            self.shares.push(Arc::new(Share { writer, members: Mutex::default(), deliveries }));
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

    /// Queues a publication with each writer. When the publication's turn comes, the writer pushes it to the
    /// subscribers of that moment.
    pub fn hand(&self, frame: &Frame, publication: &Publication) {
        for share in &self.shares {
            share.writer.hand(Delivery {
                to: Arc::clone(share) as Arc<dyn writer::Audience>,
                frame: frame.clone(),
                offset: publication.offset,
                at: publication.at,
            });
        }
    }
}
