//! Preparation of a subscribe: the round trips to the broker, without effect for the client. All subscribes of a frame
//! are prepared together, and then take effect in order and without further round trips.

use super::Hub;
use super::feed::JoinOutcome;
use super::registry::Joining;
use crate::broker::{BrokerError, History};
use crate::protocol::Position;
use tokio::time::Instant;

/// A channel that is subscribed at the broker, at least for the lifetime of this value.
pub struct Prepared<'a> {
    joining: Joining<'a>,
    /// Publications after the client's position, if read from the broker. [`Hub::subscribe`] adds later publications.
    pub history: Option<History>,
}

impl Hub {
    /// Makes the channel live: subscribed at the broker, and synced.
    pub async fn prepare(&self, name: &str) -> Result<Prepared<'_>, BrokerError> {
        let joining = self.find_or_create(name);
        self.make_live(&joining.channel).await?;
        Ok(Prepared { joining, history: None })
    }

    /// Reads the publications after `since`, if the feed's recent publications do not reach back to `since`.
    pub async fn read_ahead(&self, prepared: &mut Prepared<'_>, since: &Position) -> Result<(), BrokerError> {
        let channel = &prepared.joining.channel;
        let missed_after = {
            let mut state = channel.state();
            let mut feed = state.content.feed().filter(|feed| feed.is_live());
            feed.iter_mut().for_each(|feed| feed.expire(Instant::now()));
            match feed.map(|feed| feed.join(Some(since), None)) {
                Some(JoinOutcome::ReadHistory(after)) => after,
                Some(JoinOutcome::Ready(_) | JoinOutcome::Behind) | None => return Ok(()),
            }
        };
        prepared.history = Some(self.missed(channel, missed_after).await?);
        Ok(())
    }
}
