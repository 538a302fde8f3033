//! Preparation of all subscribes of one frame.
//!
//! SDKs send `connect` and all subscribes in one frame. Access, presence, the channels' links and missed publications
//! are requested for all subscribes together, before the first subscribe of the frame. Each subscribe then takes effect
//! and is answered in its turn, and requests the missing parts itself.

use super::Session;
use super::upcoming::Upcoming;
use crate::access::Purpose;
use crate::access::change_log::Moment;
use crate::broker::{BrokerError, History};
use crate::channel::Kind;
use crate::connection::Connection;
use crate::hub::ahead::Prepared;
use crate::members::presence::Presence;
use crate::outbox::{Budget, Reservation};
use crate::protocol::codes::ErrorCode;
use crate::protocol::{ClientInfo, Position, Subscribe};
use crate::session::Services;
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, timeout_at};

/// Channels of a frame that are linked concurrently.
const LINKS: usize = 256;
/// Histories of a frame that are read concurrently: each may be several MB in memory until its size is known.
const READS: usize = 4;

/// Prepared parts of a frame's subscribes, by channel.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    done: bool,
    channels: HashMap<Arc<str>, Groundwork<'a>>,
}

/// Prepared parts of one subscribe. Dropping the parts undoes the preparation.
#[derive(Default)]
pub(super) struct Groundwork<'a> {
    pub verdict: Option<Result<Moment, ErrorCode>>,
    pub present: Option<Entering>,
    pub channel: Option<Prepared<'a>>,
    /// The size of `channel`'s publications in `max_total_queue_size`.
    _held: Option<Reservation>,
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

    /// Prepares a frame's subscribes, once per frame: the first, and those among the next `max_subscriptions` commands.
    /// Never fails: parts that are missing at `deadline` are requested again by the subscribe in its turn.
    pub async fn prepare(
        &mut self,
        session: &Session,
        services: &'a Services,
        first: &Subscribe,
        upcoming: &mut Upcoming<'_>,
        deadline: Instant,
    ) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let Ok(connection) = session.connection() else { return };
        let most = services.config.max_subscriptions;
        let mut more = upcoming.subscribes(most).peekable();
        if more.peek().is_none() {
            // A single subscribe gains nothing.
            return;
        }
        let wanted = wanted(std::iter::once(first).chain(more), connection, most.min(session.commands_left()));
        let names: Vec<Arc<str>> = wanted.iter().map(|(name, _)| Arc::clone(name)).collect();
        let check = services.access.check_all(session.asker(), &connection.user, &names, Purpose::Subscribe);
        let Ok(verdicts) = timeout_at(deadline, check).await else { return };
        let (mut allowed, may_read) = (Vec::new(), session.may_read(connection));
        for (mut channel, verdict) in wanted.into_iter().zip(verdicts) {
            let groundwork = Groundwork { verdict: Some(verdict), ..Groundwork::default() };
            self.channels.insert(Arc::clone(&channel.0), groundwork);
            // Without read tokens the subscribe will be refused; no reading ahead.
            channel.1 = channel.1.filter(|_| may_read);
            // Updates channels are not channels of the broker.
            if verdict.is_ok() && Kind::of(&channel.0) != Kind::Updates {
                allowed.push(channel);
            }
        }
        if timeout_at(deadline, services.relay_start.wait()).await.is_ok() {
            self.join(services, connection, allowed, deadline).await;
        }
    }

    /// Enters the channels' presence and links the channels, concurrently.
    async fn join(
        &mut self,
        services: &'a Services,
        connection: &Connection,
        channels: Vec<Wanted>,
        deadline: Instant,
    ) {
        let with_presence = channels.iter().map(|(name, _)| name).filter(|name| Kind::of(name) == Kind::Feed);
        let (with_presence, info) = (with_presence.cloned().collect(), connection.info());
        let entering = timeout_at(deadline, enter(&services.presence, with_presence, &info));
        let linking = link(services, connection.outbox.budget(), channels, deadline);
        let (present, linked) = futures_util::future::join(entering, linking).await;
        for (name, present) in present.ok().and_then(Result::ok).into_iter().flatten() {
            self.channels.entry(name).or_default().present = Some(present);
        }
        for (name, channel, held) in linked {
            let groundwork = self.channels.entry(name).or_default();
            (groundwork.channel, groundwork._held) = (Some(channel), held);
        }
    }
}

/// A channel to subscribe to, and the position to recover from.
type Wanted = (Arc<str>, Option<Position>);

/// The distinct channels of subscribes, at most `limit`, without the connection's present subscriptions.
fn wanted<'a>(subscribes: impl Iterator<Item = &'a Subscribe>, connection: &Connection, limit: usize) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let new = subscribes.filter(|it| !connection.channels().contains(&it.channel) && seen.insert(it.channel.as_str()));
    new.take(limit).map(|it| (Arc::from(it.channel.as_str()), it.recover.clone())).collect()
}

async fn enter(
    presence: &Arc<Presence>,
    channels: Vec<Arc<str>>,
    info: &ClientInfo,
) -> Result<Vec<(Arc<str>, Entering)>, BrokerError> {
    // Before the call: a failed or abandoned call is undone.
    let entering = channels.iter().map(|channel| Entering::new(presence, channel, &info.client));
    let entering: Vec<Entering> = entering.collect();
    presence.enter_all(&channels, info).await?;
    Ok(channels.into_iter().zip(entering).collect())
}

/// Links channels and reads missed publications. At most `max_queue_size` / 2 bytes of publications are kept, and none
/// while `max_total_queue_size` is used up, in which they are counted; further subscribes read again in their turn.
async fn link<'a>(
    services: &'a Services,
    budget: &Budget,
    channels: Vec<Wanted>,
    deadline: Instant,
) -> Vec<(Arc<str>, Prepared<'a>, Option<Reservation>)> {
    let linking = channels.into_iter().map(|(name, recover)| async move {
        let prepared = timeout_at(deadline, services.hub.prepare(&name)).await.ok()?.ok()?;
        Some((name, recover, prepared))
    });
    // Collected before the await: a future that holds the closures is not recognised as `Send`.
    let linking: Vec<_> = linking.collect();
    let linked = futures_util::stream::iter(linking).buffer_unordered(LINKS);
    let linked: Vec<_> = linked.filter_map(std::future::ready).collect().await;

    let (limit, kept) = (services.config.max_queue_size / 2, AtomicUsize::new(0));
    let kept = &kept;
    let reading = linked.into_iter().map(|(name, recover, mut prepared)| async move {
        let may_read = || kept.load(Ordering::Relaxed) < limit && !budget.is_used_up();
        if let Some(since) = recover.filter(|_| may_read()) {
            // After a failure the subscribe reads in its turn.
            let _ = timeout_at(deadline, services.hub.read_ahead(&mut prepared, &since)).await;
        }
        let size = prepared.history.as_ref().map_or(0, size);
        let fits = size > 0 && kept.fetch_add(size, Ordering::Relaxed) + size <= limit;
        let held = if fits { budget.reserve(size) } else { None };
        if size > 0 && held.is_none() {
            prepared.history = None;
        }
        (name, prepared, held)
    });
    let reading: Vec<_> = reading.collect();
    futures_util::stream::iter(reading).buffer_unordered(READS).collect().await
}

fn size(history: &History) -> usize {
    history.publications.iter().map(|publication| publication.data.len()).sum()
}

/// Presence of a client before its subscription. Dropping the guard ends the presence, unless [`stays`](Entering::stays)
/// is set.
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
