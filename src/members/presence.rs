//! Presence of the node's clients in channels, and the renewal of the leases in the broker. Clients of invisible users are
//! left out.

use super::renewal::{ByTurn, RenewalSchedule};
use crate::broker::{Broker, BrokerError};
use crate::protocol::ClientInfo;
use crate::tasks::{self, Task};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Maximum number of departures per call to the broker.
const CHUNK: usize = 500;

pub struct Presence {
    broker: Arc<dyn Broker>,
    local: Mutex<LocalClients>,
    /// Users who are invisible to every client.
    hidden: Mutex<HashSet<String, foldhash::fast::RandomState>>,
    /// Calls that add clients of users who have become visible again.
    showing: TaskTracker,
    departures: mpsc::UnboundedSender<Departure>,
    /// Reports departures to the broker.
    _reporter: AbortOnDropHandle<()>,
}

enum Departure {
    Client(Arc<str>, Arc<str>),
    /// Marks the end of the queue: answered once the broker knows the departures before the mark.
    Last(oneshot::Sender<()>),
}

/// The node's clients.
type LocalClients = ByTurn<LocalClient>;

/// A client with the client's channels.
struct LocalClient {
    user: Arc<str>,
    channels: Vec<Arc<str>>,
}

impl Presence {
    pub fn start(broker: Arc<dyn Broker>) -> Arc<Self> {
        let (departures, leaving) = mpsc::unbounded_channel();
        let (local, hidden, showing) = (Mutex::default(), Mutex::default(), TaskTracker::new());
        Arc::new_cyclic(|me| {
            let reporter = tasks::spawn(Task::PresenceLeavers, Self::report_departures(Weak::clone(me), leaving));
            Self { broker, local, hidden, showing, departures, _reporter: reporter }
        })
    }

    /// Reports departures to the broker. Departures queued during the previous call share the next call.
    async fn report_departures(presence: Weak<Self>, mut leaving: mpsc::UnboundedReceiver<Departure>) {
        let mut batch = Vec::new();
        while leaving.recv_many(&mut batch, CHUNK).await > 0 {
            let Some(presence) = presence.upgrade() else { return };
            let (mut gone, mut waiting) = (Vec::with_capacity(batch.len()), Vec::new());
            for departure in batch.drain(..) {
                match departure {
                    // The client has returned already.
                    Departure::Client(channel, client) if presence.is_visible(&channel, &client) => {}
                    Departure::Client(channel, client) => gone.push((channel, client)),
                    Departure::Last(reported) => waiting.push(reported),
                }
            }
            if let Err(error) = presence.broker.remove_presence(&gone).await {
                tracing::debug!(%error, "removing presence from the broker failed; the leases will expire");
            }
            for reported in waiting {
                // The receiver may have stopped waiting.
                let _ = reported.send(());
            }
        }
    }

    /// Starts the renewal of the leases, three times within the duration of a lease: for a broker shared by several nodes.
    pub fn start_renewal(self: &Arc<Self>, lease: Duration) -> AbortOnDropHandle<()> {
        tasks::spawn(Task::PresenceRenewal, Arc::clone(self).renew(lease))
    }

    async fn renew(self: Arc<Self>, lease: Duration) {
        let mut schedule = RenewalSchedule::new(lease / 3);
        let mut failing = false;
        loop {
            let turn = schedule.next().await;
            let due = select(self.local().of(turn), |_| true);
            for (at, part) in schedule.parts(&due) {
                sleep_until(at).await;
                let visible = |(channel, info): &&(Arc<str>, ClientInfo)| self.is_visible(channel, &info.client);
                let part: Vec<_> = part.iter().filter(visible).cloned().collect();
                if let Err(error) = self.broker.add_presence(&part).await {
                    // Logged once per outage.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "renewing presence in the broker failed; retrying, clients may be missing from presence");
                    }
                    break;
                }
                failing = false;
                self.leave_again(&part);
            }
        }
    }

    pub async fn enter(self: &Arc<Self>, channel: &Arc<str>, info: &ClientInfo) -> Result<(), BrokerError> {
        self.enter_all(std::slice::from_ref(channel), info).await
    }

    /// Enters several channels in one call to the broker.
    pub async fn enter_all(self: &Arc<Self>, channels: &[Arc<str>], info: &ClientInfo) -> Result<(), BrokerError> {
        channels.iter().for_each(|channel| self.note(channel, info));
        if channels.is_empty() || !self.shows(&info.user) {
            return Ok(());
        }
        let clients: Vec<_> = channels.iter().map(|channel| (Arc::clone(channel), info.clone())).collect();
        let me = Arc::clone(self);
        let adding = async move {
            me.broker.add_presence(&clients).await?;
            me.leave_again(&clients);
            Ok(())
        };
        // A client that is gone before the broker's answer is removed again after the answer.
        tasks::outliving(adding).await.unwrap_or_else(|| Err(BrokerError::stopping()))
    }

    /// Hides a user's clients, or shows them again.
    pub fn hide(self: &Arc<Self>, user: &str, hidden: bool) {
        let changed = if hidden { self.hidden().insert(user.to_owned()) } else { self.hidden().remove(user) };
        if !changed {
            return;
        }
        let clients = select(self.local().iter(), |name| name == user);
        if hidden {
            clients.into_iter().for_each(|(channel, info)| self.report_departure(channel, info.client));
            return;
        }
        let me = Arc::clone(self);
        self.showing.spawn(async move {
            match me.broker.add_presence(&clients).await {
                Ok(()) => me.leave_again(&clients),
                Err(error) => tracing::debug!(%error, "showing a user's clients failed; the next renewal shows them"),
            }
        });
    }

    /// Drops the state of a user without clients on the node.
    pub fn forget(&self, user: &str) {
        self.hidden().remove(user);
    }

    pub(crate) fn shows(&self, user: &str) -> bool {
        !self.hidden().contains(user)
    }

    fn note(&self, channel: &Arc<str>, info: &ClientInfo) {
        let mut local = self.local();
        let present = local
            .around_mut(&info.client)
            .entry(Arc::clone(&info.client))
            .or_insert_with(|| LocalClient { user: Arc::clone(&info.user), channels: Vec::new() });
        if !present.channels.contains(channel) {
            // Mostly two, for which a growing list would have room for four.
            present.channels.reserve_exact(1);
            present.channels.push(Arc::clone(channel));
        }
    }

    /// Whether the client is in the channel and visible.
    fn is_visible(&self, channel: &str, client: &str) -> bool {
        let local = self.local();
        let present =
            local.around(client).get(client).filter(|present| present.channels.iter().any(|it| **it == *channel));
        present.is_some_and(|present| self.shows(&present.user))
    }

    /// Removes the client from the channel. Returns both names if the client was there.
    fn take_out(&self, channel: &str, client: &str) -> Option<(Arc<str>, Arc<str>)> {
        let mut local = self.local();
        let local = local.around_mut(client);
        let present = local.get_mut(client)?;
        let at = present.channels.iter().position(|it| **it == *channel)?;
        let channel = present.channels.swap_remove(at);
        if !present.channels.is_empty() {
            return Some((channel, client.into()));
        }
        local.remove_entry(client).map(|(client, _)| (channel, client))
    }

    /// Removes a client from a channel. Returns at once: a background task reports the departure to the broker; if the
    /// report fails, the lease expires.
    pub fn leave(self: &Arc<Self>, channel: &str, client: &str) {
        if let Some((channel, client)) = self.take_out(channel, client) {
            self.report_departure(channel, client);
        }
    }

    fn report_departure(&self, channel: Arc<str>, client: Arc<str>) {
        // Fails only after a panic of the receiving task.
        let _ = self.departures.send(Departure::Client(channel, client));
    }

    /// For the end of the process: removes the remaining clients, and returns once the broker knows every departure.
    pub async fn withdraw(self: &Arc<Self>) {
        let all = select(self.local().iter(), |_| true);
        for (channel, info) in all {
            self.leave(&channel, &info.client);
        }
        self.showing.close();
        self.showing.wait().await;
        let (last, reported) = oneshot::channel();
        if self.departures.send(Departure::Last(last)).is_ok() {
            let _ = reported.await;
        }
    }

    /// Removes clients that left, or were hidden, while the call to add the clients was under way.
    fn leave_again(self: &Arc<Self>, renewed: &[(Arc<str>, ClientInfo)]) {
        for (channel, info) in renewed {
            if !self.is_visible(channel, &info.client) {
                self.report_departure(Arc::clone(channel), Arc::clone(&info.client));
            }
        }
    }

    /// May be taken while `local` is held, never the other way round.
    fn hidden(&self) -> MutexGuard<'_, HashSet<String, foldhash::fast::RandomState>> {
        self.hidden.lock()
    }

    fn local(&self) -> MutexGuard<'_, LocalClients> {
        self.local.lock()
    }
}

/// The channels of the users' clients, with the clients.
fn select<'a>(
    clients: impl IntoIterator<Item = (&'a Arc<str>, &'a LocalClient)>,
    is_of_user: impl Fn(&str) -> bool,
) -> Vec<(Arc<str>, ClientInfo)> {
    let mut selected = Vec::new();
    for (client, LocalClient { user, channels }) in clients.into_iter().filter(|(_, local)| is_of_user(&local.user)) {
        let info = ClientInfo { user: Arc::clone(user), client: Arc::clone(client) };
        selected.extend(channels.iter().map(|channel| (Arc::clone(channel), info.clone())));
    }
    selected
}
