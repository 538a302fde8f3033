//! Batching of questions to PocketBase: many questions become few calls.
//!
//! Questions that arrive while calls are under way share the next call. Calls that are not full are paced by a token
//! bucket ([`pending`]): the number of calls does not grow with the number of askers. The last tokens are kept for
//! askers without a call in the last second, so a busy asker's pauses do not delay other askers.
//!
//! Calls have at most [`BATCH`](call_size::BATCH) questions, and fewer while PocketBase is slow: a slow call delays all
//! questions behind it.
//!
//! Each asker has its own queue, and a call takes from all queues in turn: many questions of one asker do not hold up
//! the single question of another.

mod call_size;
mod pending;
mod queue;

use super::PocketBaseError;
use crate::tasks::{self, Task};
use pending::PendingQuestions;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// Requests that may wait for the batching task; further callers wait for free space.
const REQUESTS: usize = 256;
/// Questions held by the batching task, about 200 bytes each. Above this number, no further requests are taken in, and
/// callers are served in order of arrival. Below it, askers take turns, so the number is large: all questions of 1,000
/// full connections.
const QUEUE: usize = 256 * 1024;
/// Concurrent calls to PocketBase. More calls would only queue there.
const IN_FLIGHT: usize = 4;

type QuestionResult<V> = Result<V, PocketBaseError>;

/// The client on whose behalf a question is asked: a user, or the address of a guest. The unit of fairness, and of the
/// rate of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker(pub u64);

impl Asker {
    /// From a user's key or an address. Two names with the same hash would share their turns and their rate.
    pub fn of(name: impl Hash) -> Self {
        static HASHER: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);
        Self(HASHER.hash_one(name))
    }
}

/// Asks PocketBase in batches. Equal questions in a batch are sent once.
pub struct Batcher<K, V> {
    requests: mpsc::Sender<AskerQuestions<K, V>>,
    hasher: foldhash::fast::RandomState,
    _task: AbortOnDropHandle<()>,
}

struct AskerQuestions<K, V> {
    asker: Asker,
    questions: Vec<Question<K, V>>,
}

struct Question<K, V> {
    key: K,
    answer: oneshot::Sender<QuestionResult<V>>,
}

impl<K, V> Batcher<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + 'static,
{
    /// `call` answers each key of a batch, in its order.
    pub fn start<F, Fut>(call: F) -> Self
    where
        F: Fn(Arc<[K]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, PocketBaseError>> + Send + 'static,
    {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let task = tasks::spawn(Task::Batches, run(receiver, call));
        Self { requests, hasher: foldhash::fast::RandomState::default(), _task: task }
    }

    /// A single question, as an asker of its own.
    pub async fn ask(&self, key: K) -> QuestionResult<V> {
        let asker = Asker(self.hasher.hash_one(&key));
        self.ask_all(asker, [key]).await.pop().unwrap_or(Err(PocketBaseError::Abandoned))
    }

    /// Several questions of one asker, in as few calls as possible. Returns the answers in order.
    pub async fn ask_all(&self, asker: Asker, keys: impl IntoIterator<Item = K>) -> Vec<QuestionResult<V>> {
        let (questions, answers): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .map(|key| {
                let (answer, answered) = oneshot::channel();
                (Question { key, answer }, answered)
            })
            .unzip();
        // Fails only after a panic in the batching task; then the answers fail as well.
        let _ = self.requests.send(AskerQuestions { asker, questions }).await;
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            results.push(answered.await.unwrap_or(Err(PocketBaseError::Abandoned)));
        }
        results
    }
}

async fn run<K, V, F, Fut>(mut requests: mpsc::Receiver<AskerQuestions<K, V>>, call: F)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + 'static,
    F: Fn(Arc<[K]>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<V>, PocketBaseError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut pending = PendingQuestions::new(Instant::now());
    loop {
        // First a free slot, then the questions: questions that arrive meanwhile join the batch.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        if pending.queue.is_empty() {
            let Some(request) = requests.recv().await else { return };
            pending.add(request);
        }
        while pending.queue.len() < QUEUE
            && let Ok(request) = requests.try_recv()
        {
            pending.add(request);
        }
        while let now = Instant::now()
            && let due = pending.due(now)
            && due > now
            && let Ok(Some(request)) = timeout_at(due, requests.recv()).await
        {
            pending.add(request);
        }
        let questions = pending.take(Instant::now());
        if questions.is_empty() {
            continue;
        }
        let (keys, waiting) = merged(questions);
        let (answers, size, began) = (call(Arc::clone(&keys)), Arc::clone(&pending.size), Instant::now());
        tokio::spawn(async move {
            let answers = answers.await;
            size.learn(keys.len(), began.elapsed(), &answers);
            deliver(&keys, waiting, answers);
            drop(slot);
        });
    }
}

/// Callers by question.
type Waiters<K, V> = HashMap<K, Vec<oneshot::Sender<QuestionResult<V>>>>;

/// Removes duplicate questions and keeps the order.
fn merged<K: Clone + Eq + Hash, V>(questions: Vec<Question<K, V>>) -> (Arc<[K]>, Waiters<K, V>) {
    let mut keys = Vec::with_capacity(questions.len());
    let mut waiting = Waiters::with_capacity(questions.len());
    for Question { key, answer } in questions {
        let waiters = waiting.entry(key.clone()).or_default();
        if waiters.is_empty() {
            keys.push(key);
        }
        waiters.push(answer);
    }
    (keys.into(), waiting)
}

fn deliver<K: Eq + Hash, V: Clone>(keys: &[K], mut waiting: Waiters<K, V>, answers: QuestionResult<Vec<V>>) {
    for (i, key) in keys.iter().enumerate() {
        let answer = match &answers {
            Ok(values) => values.get(i).cloned().ok_or(PocketBaseError::Abandoned),
            Err(error) => Err(error.clone()),
        };
        for waiter in waiting.remove(key).into_iter().flatten() {
            // The caller may have given up.
            let _ = waiter.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod batch_tests;
