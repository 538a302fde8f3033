//! Status channels: one state, the user's status, instead of a history. A subscriber gets the current status with the
//! reply and every later change; after a gap, the newest status only.

use super::channel::{Channel, ChannelState};
use super::latest_status::ReadOutcome;
use super::subscriber::Subscriber;
use super::{Hub, SubscribeError};
use crate::broker::BrokerError;
use crate::broker::status_store::UserStatus;
use crate::channel;
use crate::connection::Connection;
use crate::protocol::Publication;
use crate::protocol::encode::{self, Push};
use crate::protocol::format::PerFormat;
use std::sync::Arc;

/// Maximum number of statuses read in one call.
const BATCH: usize = 500;

impl Hub {
    /// Adds a subscriber to a status channel. `accept` as in [`Hub::subscribe`].
    pub async fn subscribe_status(
        &self,
        name: &str,
        connection: &Arc<Connection>,
        accept: impl FnOnce(UserStatus) -> bool + Send,
    ) -> Result<bool, SubscribeError> {
        let joining = self.find_or_create(name);
        let channel = &joining.channel;
        loop {
            self.make_live(channel).await?;
            let mut state = channel.state();
            if state.subscribers.contains(connection.id) {
                return Err(SubscribeError::AlreadySubscribed);
            }
            let current = state.content.status().ok_or(SubscribeError::OtherKind)?;
            if current.is_live() {
                let status = current.state();
                return Ok(self.add(channel, &mut state, Subscriber::new(connection, 0), || accept(status)));
            }
        }
    }

    /// Reads the status until the channel is live again. The caller holds the channel's attachment.
    pub(super) async fn read_status(&self, channel: &Channel, user: &str) -> Result<(), BrokerError> {
        let user = [user.to_owned()];
        loop {
            match channel.state().content.status() {
                Some(current) => current.begin_read(),
                None => return Ok(()),
            }
            let read = self.broker.statuses(&user).await?.pop().flatten();
            self.level().await?;
            let mut state = channel.state();
            match state.content.status().map(|current| current.finish_read(read)) {
                Some(ReadOutcome::Again) => {}
                Some(ReadOutcome::News(status)) => {
                    self.deliver_status(channel, &mut state, status);
                    return Ok(());
                }
                Some(ReadOutcome::Nothing) | None => return Ok(()),
            }
        }
    }

    /// Compares the known statuses with the broker's, [`BATCH`] per call.
    pub(super) async fn check_statuses(&self, channels: Vec<Arc<Channel>>) {
        for channels in channels.chunks(BATCH) {
            let user = |channel: &Arc<Channel>| channel::user_of_status(&channel.name).unwrap_or_default().to_owned();
            let users: Vec<String> = channels.iter().map(user).collect();
            let Ok(read) = self.broker.statuses(&users).await else { return };
            let doubtful = channels.iter().zip(read).filter(|(channel, read)| {
                let content = &mut channel.state().content;
                let differs =
                    read.is_some_and(|read| content.status().is_some_and(|it| read.is_news_after(&it.state())));
                differs && content.doubt()
            });
            self.sync_later(doubtful.map(|(channel, _)| Arc::clone(channel)).collect());
        }
    }

    /// Delivers a status to all subscribers; suspended subscribers get the status after the suspension. The caller
    /// holds the channel's state.
    pub(super) fn deliver_status(&self, channel: &Channel, state: &mut ChannelState, status: UserStatus) {
        if state.subscribers.is_empty() {
            return;
        }
        let publication = Publication { offset: 0, at: 0, data: status.payload(), info: None };
        let frames = PerFormat::default();
        state.subscribers.each(|subscriber| {
            let push = |format| encode::push(format, &channel.name, &Push::Publication(&publication));
            let frame = frames.get(subscriber.outbox().format(), push);
            self.metrics.deliveries.inc_by(u64::from(subscriber.push(&frame)));
        });
        self.metrics.status_changes.inc();
    }
}
