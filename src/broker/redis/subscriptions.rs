//! The subscription link to one node: requests to subscribe and unsubscribe, and the link's health. The [`keeper`] does
//! the work.

mod keeper;

use super::address::Endpoint;
use super::delivery::MessageQueue;
use super::error::LinkError;
use super::pubsub::ANSWER_TIMEOUT;
use super::slots::SlotMap;
use super::subscriber::RedisSubscriber;
use crate::broker::BrokerError;
use crate::tasks::{self, Task};
use keeper::Keeper;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Queued requests to subscribe or unsubscribe; further callers wait.
const REQUESTS: usize = 1024;

pub struct Subscriptions {
    requests: mpsc::Sender<SubscriptionRequest>,
    health: Arc<Health>,
    _task: AbortOnDropHandle<()>,
}

struct Health {
    /// True while all wanted channels of this node are subscribed.
    whole: AtomicBool,
    /// The last failure.
    trouble: Mutex<LinkError>,
}

struct SubscriptionRequest {
    channel: String,
    wanted: bool,
    done: oneshot::Sender<Result<(), SubscriptionError>>,
}

pub enum SubscriptionError {
    /// Another node may own the channel's slot.
    Elsewhere(BrokerError),
    Failed(BrokerError),
}

/// Shared by all nodes.
#[derive(Clone)]
pub struct Common {
    pub state: Arc<RedisSubscriber>,
    pub queue: Arc<MessageQueue>,
    pub slots: watch::Receiver<Arc<SlotMap>>,
    /// Notified when the slots seem to have moved.
    pub outdated: Arc<Notify>,
    pub clustered: bool,
}

impl Subscriptions {
    pub fn start(endpoint: Endpoint, common: Common) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let health = Arc::new(Health { whole: AtomicBool::new(false), trouble: Mutex::new(LinkError::NotConnected) });
        let name = endpoint.name();
        let keeper = Keeper { name, endpoint, common, requests: queue, health: Arc::clone(&health) };
        Self { requests, health, _task: tasks::spawn(Task::RedisSubscriptions, keeper.keep()) }
    }

    /// Fails unless all wanted channels of this node are subscribed.
    pub fn check(&self) -> Result<(), BrokerError> {
        if self.health.whole.load(Ordering::Acquire) { Ok(()) } else { Err(self.health.down()) }
    }

    pub async fn set(&self, channel: &str, wanted: bool) -> Result<(), SubscriptionError> {
        let (done, answer) = oneshot::channel();
        let request = SubscriptionRequest { channel: channel.to_owned(), wanted, done };
        let down = || SubscriptionError::Failed(self.health.down());
        let asked = async {
            self.requests.send(request).await.map_err(|_| down())?;
            answer.await.map_err(|_| down())?
        };
        // After a timeout here, the keeper unsubscribes again.
        timeout(2 * ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(down()))
    }
}

impl Health {
    fn down(&self) -> BrokerError {
        let trouble = self.trouble.lock();
        BrokerError::Unavailable(format!("the subscription link to Redis is down: {trouble}"))
    }

    fn set_trouble(&self, trouble: LinkError) {
        self.whole.store(false, Ordering::Release);
        *self.trouble.lock() = trouble;
    }
}
