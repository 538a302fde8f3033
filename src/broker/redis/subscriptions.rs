//! What this node is subscribed to: requests carried out in their order, and everything again after each
//! reconnection.

use super::subscriber::{ANSWER_TIMEOUT, State};
use crate::broker::BrokerError;
use fred::clients::SubscriberClient;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Channels per SUBSCRIBE.
const BATCH: usize = 512;
/// Between attempts to subscribe again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub struct Request {
    pub channel: String,
    pub wanted: bool,
    pub done: oneshot::Sender<Result<(), BrokerError>>,
}

/// The one task that subscribes, so that requests and reconnections cannot overtake one another.
pub async fn keep_subscribed(client: SubscriberClient, mut requests: mpsc::Receiver<Request>, state: Arc<State>) {
    let mut reconnections = client.reconnect_rx();
    let mut errors = client.error_rx();
    let mut batch = Vec::with_capacity(BATCH);
    // From a loss, or the beginning, until everything is subscribed to again.
    let mut broken = true;
    // What may be subscribed to and should not be: the client sends some time later what it could not send.
    let mut doubtful = HashSet::new();
    let mut announced = false;
    let mut retry = Instant::now();
    loop {
        tokio::select! {
            biased;
            // Several at once are still one, so that having missed some does not matter.
            reconnected = reconnections.recv() => {
                if matches!(reconnected, Err(RecvError::Closed)) {
                    return;
                }
                state.whole.store(false, Ordering::Release);
                broken = true;
            }
            error = errors.recv() => {
                let error = match error {
                    Ok((error, _)) => error.to_string(),
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                // Once per outage: what follows says nothing new.
                if !announced {
                    tracing::warn!(error, "the subscribing link to Redis is down");
                    announced = true;
                }
                state.set_trouble(error);
                state.whole.store(false, Ordering::Release);
                broken = true;
                continue;
            }
            count = requests.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                doubtful.extend(serve(&client, std::mem::take(&mut batch), broken, &state).await);
                if !doubtful.is_empty() {
                    state.whole.store(false, Ordering::Release);
                    broken = true;
                }
                continue;
            }
            () = sleep_until(retry), if broken => {}
        }
        match restore(&client, &doubtful, &state).await {
            Ok(channels) => {
                (broken, announced) = (false, false);
                doubtful.clear();
                tracing::info!(channels, "the subscribing link to Redis is up");
                // Before it counts as whole, so that whoever finds it whole has heard of the gap.
                if channels > 0 {
                    state.gap();
                }
                state.whole.store(true, Ordering::Release);
            }
            Err(error) => {
                tracing::trace!(%error, "not subscribed again yet");
                retry = Instant::now() + RETRY_PAUSE;
            }
        }
    }
}

/// Subscribes to everything wanted, and to no more. Returns how many channels that were.
async fn restore(client: &SubscriberClient, doubtful: &HashSet<String>, state: &State) -> Result<usize, Error> {
    let unwanted: Vec<String> = {
        let wanted = state.wanted();
        doubtful.iter().filter(|&channel| !wanted.contains(channel)).map(|channel| state.keys.live(channel)).collect()
    };
    for names in unwanted.chunks(BATCH) {
        write(client, names.to_vec(), false).await?;
    }
    let names: Vec<String> = state.wanted().iter().map(|channel| state.keys.live(channel)).collect();
    for names in names.chunks(BATCH) {
        write(client, names.to_vec(), true).await?;
    }
    answered(client).await?;
    Ok(names.len())
}

/// Carries out requests in their order, neighbours of one kind in one go. Returns those channels of which it is
/// not known any more whether they are subscribed to.
async fn serve(client: &SubscriberClient, batch: Vec<Request>, broken: bool, state: &State) -> Vec<String> {
    let mut doubtful = Vec::new();
    let mut batch = batch.into_iter().filter(|request| !request.done.is_closed()).peekable();
    while let Some(first) = batch.next() {
        let wanted = first.wanted;
        let mut run = vec![first];
        while let Some(next) = batch.next_if(|next| next.wanted == wanted) {
            run.push(next);
        }
        match (wanted, broken) {
            (true, false) => doubtful.extend(add(client, run, state).await),
            (true, true) => refuse(run, state),
            (false, _) => doubtful.extend(remove(client, run, state).await),
        }
    }
    doubtful
}

async fn add(client: &SubscriberClient, run: Vec<Request>, state: &State) -> Vec<String> {
    // First, so that a reconnection in between does not miss them.
    let mut new = {
        let mut wanted = state.wanted();
        let mut add = |request: &Request| wanted.insert(request.channel.clone()).then(|| request.channel.clone());
        run.iter().filter_map(&mut add).collect::<HashSet<_>>()
    };
    let names = run.iter().map(|request| state.keys.live(&request.channel)).collect();
    let result = match write(client, names, true).await {
        Ok(()) => answered(client).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "subscribing failed");
        state.wanted().retain(|channel| !new.contains(channel));
        refuse(run, state);
        return new.into_iter().collect();
    }
    for Request { channel, done, .. } in run {
        if done.send(Ok(())).is_ok() {
            new.remove(&channel);
        }
    }
    // Nobody waited for these any more, so nobody would ever take them back.
    if new.is_empty() { Vec::new() } else { forget(client, new.into_iter().collect(), state).await }
}

async fn remove(client: &SubscriberClient, run: Vec<Request>, state: &State) -> Vec<String> {
    let doubtful = forget(client, run.iter().map(|request| request.channel.clone()).collect(), state).await;
    for request in run {
        let _ = request.done.send(Ok(()));
    }
    doubtful
}

fn refuse(run: Vec<Request>, state: &State) {
    for request in run {
        let _ = request.done.send(Err(state.down()));
    }
}

async fn forget(client: &SubscriberClient, channels: Vec<String>, state: &State) -> Vec<String> {
    {
        let mut wanted = state.wanted();
        for channel in &channels {
            wanted.remove(channel);
        }
    }
    let names = channels.iter().map(|channel| state.keys.live(channel)).collect();
    match write(client, names, false).await {
        Ok(()) => Vec::new(),
        Err(error) => {
            tracing::debug!(%error, "unsubscribing failed");
            channels
        }
    }
}

/// Sends SUBSCRIBE or UNSUBSCRIBE, and does not know what Redis made of it.
async fn write(client: &SubscriberClient, names: Vec<String>, wanted: bool) -> Result<(), Error> {
    let sent = async { if wanted { client.subscribe(names).await } else { client.unsubscribe(names).await } };
    while_connected(client, sent).await
}

/// When this returns `Ok`, Redis has acted on all that was sent before.
pub async fn answered(client: &SubscriberClient) -> Result<(), Error> {
    while_connected(client, client.ping::<Value>(None)).await.map(drop)
}

/// The client keeps what is sent while it is not connected, and sends it some time later: too late for whoever
/// waits, and in numbers if it is down for long.
async fn while_connected<T>(
    client: &SubscriberClient,
    sent: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let lost = async {
        while client.is_connected() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        () = lost => Err(Error::new(ErrorKind::IO, "not connected")),
        result = timeout(ANSWER_TIMEOUT, sent) => {
            result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")))
        }
    }
}
