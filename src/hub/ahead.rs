//! Preparation of a subscribe: what takes a round trip to the broker, without its effect. A client's subscribes are
//! prepared together and then take effect in their order, without waiting for the broker again.

use super::feed::Join;
use super::{Hub, Joining};
use crate::broker::{BrokerError, History};
use crate::protocol::Position;

/// Keeps a channel linked to the broker until it is dropped.
pub struct Prepared<'a> {
    _joining: Joining<'a>,
    /// The history after the position to recover from, if the broker was needed for it. For [`Hub::subscribe`], which
    /// adds what came in since it was read.
    pub history: Option<History>,
}

impl Hub {
    /// Links the channel and brings it up to date; with `recover`, reads what was published since.
    pub async fn prepare(&self, name: &str, recover: Option<&Position>) -> Result<Prepared<'_>, BrokerError> {
        let joining = self.hold(name);
        let channel = &joining.channel;
        self.make_live(channel).await?;
        let missing = recover.and_then(|since| {
            let mut state = channel.state();
            let feed = state.flow.feed().filter(|feed| feed.is_live())?;
            match feed.join(Some(since), None) {
                Join::ReadHistory(after) => Some(after),
                Join::Ready(_) | Join::Behind => None,
            }
        });
        let history = match missing {
            Some(after) => Some(self.missed(channel, after).await?),
            None => None,
        };
        Ok(Prepared { _joining: joining, history })
    }
}
