//! Work ahead for the subscribes of one frame.
//!
//! SDKs send `connect` and all their subscribes in one frame. Commands are answered in order, but what each subscribe
//! needs from PocketBase and the broker (access, presence, the channel's link, missed publications) is asked for
//! together, before the first subscribe of the frame. Each subscribe then takes effect in its turn with what is there,
//! and asks by itself for what is missing.

use super::Session;
use crate::access::changes::Moment;
use crate::broker::{BrokerError, History};
use crate::channel::Kind;
use crate::connection::Connection;
use crate::hub::ahead::Prepared;
use crate::pocketbase::batch::Asker;
use crate::presence::Presence;
use crate::protocol::codes::{self, ErrorCode};
use crate::protocol::{ClientInfo, Command, Position, Request, Subscribe, json};
use crate::session::Services;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, timeout_at};

/// Channels of one frame that are linked, or whose history is read, at once.
const CONCURRENCY: usize = 64;

/// What is there already for the subscribes of a frame, by channel.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    done: bool,
    channels: HashMap<Arc<str>, Groundwork<'a>>,
}

/// What is there already for one subscribe. Dropping it undoes it.
#[derive(Default)]
pub(super) struct Groundwork<'a> {
    pub verdict: Option<Result<Moment, ErrorCode>>,
    pub present: Option<Entering>,
    pub channel: Option<Prepared<'a>>,
}

impl<'a> Groundwork<'a> {
    pub fn take_history(&mut self) -> Option<History> {
        self.channel.as_mut().and_then(|channel| channel.history.take())
    }
}

impl<'a> Ahead<'a> {
    pub fn take(&mut self, channel: &str) -> Groundwork<'a> {
        self.channels.remove(channel).unwrap_or_default()
    }

    /// Prepares the subscribes of `frame` if this was not done yet. Fails nowhere: what could not be had by `deadline`
    /// is missing.
    pub async fn prepare(&mut self, session: &Session, services: &'a Services, frame: &str, deadline: Instant) {
        if std::mem::replace(&mut self.done, true) || frame.matches("\"subscribe\"").nth(1).is_none() {
            // One subscribe alone gains nothing.
            return;
        }
        let Ok(connection) = session.connection() else { return };
        let wanted = wanted(frame, connection, services.config.max_subscriptions.min(session.commands_left()));
        let names: Vec<Arc<str>> = wanted.iter().map(|(name, _)| Arc::clone(name)).collect();
        let asker = Asker(connection.id);
        let check = services.access.check_all(asker, &connection.user, &names);
        let Ok(verdicts) = timeout_at(deadline, check).await else {
            let unknown = |name| (name, Groundwork { verdict: Some(Err(codes::INTERNAL)), ..Groundwork::default() });
            self.channels = names.into_iter().map(unknown).collect();
            return;
        };
        // Updates channels have their own way in.
        let may_link = |(name, verdict): (&Arc<str>, &Result<Moment, ErrorCode>)| {
            verdict.is_ok() && Kind::of(name) != Kind::Updates
        };
        let may_link: Vec<bool> = names.iter().zip(&verdicts).map(may_link).collect();
        let linking: Vec<Wanted> = wanted.into_iter().zip(may_link).filter(|it| it.1).map(|it| it.0).collect();
        let has_presence = |name: &&Arc<str>| Kind::of(name) == Kind::Feed;
        let entering: Vec<Arc<str>> = linking.iter().map(|(name, _)| name).filter(has_presence).cloned().collect();
        let ready = timeout_at(deadline, services.relay.started()).await.is_ok();
        self.channels = names
            .into_iter()
            .zip(verdicts)
            .map(|(name, verdict)| (name, Groundwork { verdict: Some(verdict), ..Groundwork::default() }))
            .collect();
        if !ready {
            return;
        }
        let info = connection.info();
        let (present, linked) = futures_util::future::join(
            timeout_at(deadline, enter(&services.presence, entering, &info)),
            link(services, linking, deadline),
        )
        .await;
        for (name, present) in present.ok().and_then(Result::ok).into_iter().flatten() {
            self.channels.entry(name).or_default().present = Some(present);
        }
        for (name, channel) in linked {
            self.channels.entry(name).or_default().channel = Some(channel);
        }
    }
}

/// A channel to subscribe to, and the position to recover from.
type Wanted = (Arc<str>, Option<Position>);

/// The channels of a frame's subscribes, each once, at most `limit`, without those that the connection is in.
fn wanted(frame: &str, connection: &Connection, limit: usize) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for command in json::decode(frame) {
        let Ok(Command { request: Request::Subscribe(Subscribe { channel, recover, .. }), .. }) = command else {
            continue;
        };
        let channel: Arc<str> = channel.into();
        if wanted.len() < limit && !connection.channels().contains(&channel) && seen.insert(Arc::clone(&channel)) {
            wanted.push((channel, recover));
        }
    }
    wanted
}

async fn enter(
    presence: &Arc<Presence>,
    channels: Vec<Arc<str>>,
    info: &ClientInfo,
) -> Result<Vec<(Arc<str>, Entering)>, BrokerError> {
    // First, so that whoever is not subscribed in the end leaves again, also if the call fails.
    let entering = channels.iter().map(|channel| Entering::new(presence, channel, &info.client));
    let entering: Vec<Entering> = entering.collect();
    presence.enter_all(&channels, info).await?;
    Ok(channels.into_iter().zip(entering).collect())
}

/// Publications that are read ahead are kept up to half of what the connection may hold unsent.
async fn link(services: &Services, channels: Vec<Wanted>, deadline: Instant) -> Vec<(Arc<str>, Prepared<'_>)> {
    let (limit, read) = (services.config.max_queue_size / 2, AtomicUsize::new(0));
    let linking = channels.into_iter().map(|(name, recover)| {
        let read = &read;
        async move {
            let recover = recover.as_ref().filter(|_| read.load(Ordering::Relaxed) < limit);
            let mut prepared = timeout_at(deadline, services.hub.prepare(&name, recover)).await.ok()?.ok()?;
            let size = prepared.history.as_ref().map_or(0, size);
            if read.fetch_add(size, Ordering::Relaxed) + size > limit {
                prepared.history = None;
            }
            Some((name, prepared))
        }
    });
    let linked = futures_util::stream::iter(linking).buffer_unordered(CONCURRENCY);
    linked.filter_map(std::future::ready).collect().await
}

fn size(history: &History) -> usize {
    history.publications.iter().map(|publication| publication.data.len()).sum()
}

/// A client that is present in a channel before it is subscribed. Unless it [`stays`](Entering::stays), it is taken
/// out again when this is dropped.
pub(super) struct Entering {
    presence: Arc<Presence>,
    channel: Arc<str>,
    client: Arc<str>,
    pub stays: bool,
}

impl Entering {
    pub fn new(presence: &Arc<Presence>, channel: &Arc<str>, client: &Arc<str>) -> Self {
        let (presence, channel, client) = (Arc::clone(presence), Arc::clone(channel), Arc::clone(client));
        Self { presence, channel, client, stays: false }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        if !self.stays {
            self.presence.leave(&self.channel, &self.client);
        }
    }
}
