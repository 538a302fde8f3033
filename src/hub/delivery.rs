//! Delivery from the broker to the subscribers: checks the order of each arrival, and delivers or holds it back.

use super::channel::{Channel, ChannelState};
use super::feed::Arrival;
use super::{Hub, Watcher};
use crate::broker::Sink;
use crate::broker::status_store::UserStatus;
use crate::protocol::encode::{self, Push};
use crate::protocol::format::PerFormat;
use crate::protocol::{ClientInfo, Movement, Position, Publication};
use bytes::Bytes;
use std::sync::{Arc, Weak};
use tokio::time::Instant;

impl Sink for Hub {
    fn publication(&self, channel: &str, epoch: &str, publication: Publication, after: Option<&Position>) {
        let Some(channel) = self.find(channel) else { return };
        let early = self.is_early(&channel, after);
        let mut state = channel.state();
        let Some(feed) = state.content.feed() else { return };
        // An early publication is held back until a read of the history, which waits for the watched channel.
        let must_read = early && feed.doubt();
        match feed.arrive(epoch, &publication) {
            Arrival::Deliver => {
                feed.renew(Instant::now());
                self.deliver(&channel, &state, &publication);
            }
            Arrival::Repeat => self.metrics.publication_repeats.inc(),
            Arrival::Held if !must_read => {}
            Arrival::Held | Arrival::Gap => {
                drop(state);
                self.sync_later(vec![channel]);
            }
        }
    }

    fn signal(&self, channel: &str, publication: Publication) {
        if let Some(channel) = self.find(channel) {
            self.deliver(&channel, &channel.state(), &publication);
        }
    }

    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo) {
        if let Some(channel) = self.find(channel) {
            self.deliver_movement(&channel, movement, &info);
        }
    }

    fn status(&self, channel: &str, status: UserStatus) {
        if let Some(channel) = self.find(channel) {
            let early = self.is_early(&channel, None);
            let mut state = channel.state();
            let Some(current) = state.content.status() else { return };
            let must_read = early && current.doubt();
            if current.arrive(status) {
                self.deliver_status(&channel, &mut state, status);
            }
            drop(state);
            if must_read {
                self.sync_later(vec![channel]);
            }
        }
    }

    fn message(&self, message: Bytes) {
        if let Some(mailbox) = self.mailbox.get().and_then(Weak::upgrade) {
            mailbox.message(message);
        }
    }

    fn gap(&self) {
        let doubtful = self.all_channels().into_iter().filter(|channel| channel.state().content.doubt()).collect();
        self.sync_later(doubtful);
    }
}

impl Hub {
    /// Delivers a publication to all subscribers, encoded once per format. The caller holds the channel's state, which
    /// keeps the order.
    pub(super) fn deliver(&self, channel: &Channel, state: &ChannelState, publication: &Publication) {
        if let Some(watcher) = self.watcher_of(channel) {
            watcher.publication(&publication.data);
        }
        if state.subscribers.is_empty() {
            return;
        }
        self.metrics.publications.inc();
        if publication.offset > 0 {
            state.subscribers.hand(&channel.name, publication);
        } else {
            self.deliver_signal(channel, state, publication);
        }
    }

    /// Delivers a signal, without a history. Signals are dropped for slow clients, so that numbered publications have
    /// room in the outbox.
    fn deliver_signal(&self, channel: &Channel, state: &ChannelState, signal: &Publication) {
        let frames = PerFormat::default();
        state.subscribers.each(|subscriber| {
            if !subscriber.wants_signal(signal.info.as_ref()) {
                return;
            }
            let push = |format| encode::push(format, &channel.name, &Push::Publication(signal));
            let outbox = subscriber.outbox();
            if outbox.push_if_roomy(frames.get(outbox.format(), push)) {
                self.metrics.deliveries.inc();
            } else {
                self.metrics.signals_dropped.inc();
            }
        });
    }

    /// Delivers a join or leave to the subscribers with `movements`, except the client in `info`. Held back for
    /// suspended subscriptions, as publications.
    fn deliver_movement(&self, channel: &Channel, movement: Movement, info: &ClientInfo) {
        let frames = PerFormat::default();
        channel.state().subscribers.each(|subscriber| {
            if subscriber.movements && subscriber.connection.client != info.client {
                let push = |format| encode::push(format, &channel.name, &Push::Movement(movement, info));
                let frame = frames.get(subscriber.outbox().format(), push);
                self.metrics.deliveries.inc_by(u64::from(subscriber.push(&frame)));
            }
        });
    }

    pub(super) fn watcher_of(&self, channel: &Channel) -> Option<Arc<dyn Watcher>> {
        let watched = self.watched.get()?;
        if std::ptr::eq(&*watched.channel, channel) { watched.watcher.upgrade() } else { None }
    }
}
