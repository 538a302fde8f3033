//! Batching of questions to PocketBase: many questions become few calls.
//!
//! Questions that arrive while calls are under way share the next call. Calls that are not full are paced by a token
//! bucket ([`RATE`], [`BURST`]): the number of calls does not grow with the number of askers. The last [`RESERVE`]
//! tokens are kept for askers without a call in the last second, so a busy asker's pauses do not delay other askers.
//!
//! Calls have at most [`BATCH`] questions, and fewer while PocketBase is slow ([`CallSize`]): a slow call delays all
//! questions behind it.
//!
//! Each asker has its own queue, and a call takes from all queues in turn: many questions of one asker do not hold up
//! the single question of another.

mod queue;

use super::PocketBaseError;
use crate::limits::bucket::{Bucket, Rate};
use crate::tasks::{self, Task};
use queue::FairQueue;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Requests that may wait for the batching task; further callers wait for free space.
const REQUESTS: usize = 256;
/// Questions held by the batching task, about 200 bytes each. Above this number, no further requests are taken in, and
/// callers are served in order of arrival. Below it, askers take turns, so the number is large: all questions of 1,000
/// full connections.
const QUEUE: usize = 256 * 1024;
/// Concurrent calls to PocketBase. More calls would only queue there.
const IN_FLIGHT: usize = 4;
/// Questions in one call: all subscriptions that a connection may have by default. PocketBase takes up to 500.
const BATCH: usize = 256;
/// Minimum size to which calls shrink.
const BATCH_MIN: usize = 16;
/// Time that a call should take at most. A full call that takes less than half of this time lets calls grow again.
const CALL: Duration = Duration::from_millis(100);
/// Calls per second in the long run. Full calls are not counted.
const RATE: usize = 20;
/// Calls that may go out at once after a quiet time.
const BURST: usize = 4;
/// Tokens reserved for askers without a recent call.
const RESERVE: u32 = 2;
/// Time for which an asker's call counts as recent.
const RECENT: Duration = Duration::from_secs(1);

type Answer<V> = Result<V, PocketBaseError>;

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

/// Size of the next calls: halved by each call that times out or takes longer than [`CALL`], doubled by each full call
/// that is fast.
struct CallSize(AtomicUsize);

impl CallSize {
    fn new() -> Self {
        Self(AtomicUsize::new(BATCH))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adjusts the size after a call with `questions` questions that took `took`.
    fn learn<V>(&self, questions: usize, took: Duration, answer: &Answer<V>) {
        let size = self.get();
        let is_slow = matches!(answer, Err(PocketBaseError::Timeout)) || took > CALL;
        // Concurrent slow calls have halved the size already.
        let next = if is_slow && questions > size / 2 {
            (questions / 2).clamp(BATCH_MIN, size)
        } else if answer.is_ok() && took < CALL / 2 && questions >= size {
            (size * 2).min(BATCH)
        } else {
            return;
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

/// Asks PocketBase in batches. Equal questions in a batch are sent once. The batching task ends after the drop of the
/// batcher.
pub struct Batcher<K, V> {
    requests: mpsc::Sender<Request<K, V>>,
    hasher: foldhash::fast::RandomState,
}

struct Request<K, V> {
    asker: Asker,
    questions: Vec<Question<K, V>>,
}

struct Question<K, V> {
    key: K,
    answer: oneshot::Sender<Answer<V>>,
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
        tasks::spawn(Task::Batches, run(receiver, call));
        Self { requests, hasher: foldhash::fast::RandomState::default() }
    }

    /// A single question, as an asker of its own.
    pub async fn ask(&self, key: K) -> Answer<V> {
        let asker = Asker(self.hasher.hash_one(&key));
        self.ask_all(asker, [key]).await.pop().unwrap_or(Err(PocketBaseError::Abandoned))
    }

    /// Several questions of one asker, in as few calls as possible. Returns the answers in order.
    pub async fn ask_all(&self, asker: Asker, keys: impl IntoIterator<Item = K>) -> Vec<Answer<V>> {
        let (questions, answers): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .map(|key| {
                let (answer, answered) = oneshot::channel();
                (Question { key, answer }, answered)
            })
            .unzip();
        // Fails only after a panic in the batching task; then the answers fail as well.
        let _ = self.requests.send(Request { asker, questions }).await;
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            results.push(answered.await.unwrap_or(Err(PocketBaseError::Abandoned)));
        }
        results
    }
}

/// Questions waiting for a call, and the token bucket of calls.
struct Pending<K, V> {
    queue: FairQueue<Question<K, V>>,
    rate: Option<Rate>,
    calls: Bucket,
    /// Each asker's last call.
    recent: HashMap<Asker, Instant, foldhash::fast::RandomState>,
    size: Arc<CallSize>,
    /// Time of the last pruning of `recent`.
    pruned: Instant,
}

impl<K, V> Pending<K, V> {
    fn new(now: Instant) -> Self {
        let (queue, rate, recent) = (FairQueue::default(), Rate::new(RATE, BURST), HashMap::default());
        Self { queue, rate, calls: Bucket::full(now), recent, size: Arc::new(CallSize::new()), pruned: now }
    }

    fn add(&mut self, Request { asker, questions }: Request<K, V>) {
        questions.into_iter().for_each(|question| self.queue.push(asker, question));
    }

    /// Start time of the next call, as of the questions now in the queue.
    fn due(&self, now: Instant) -> Instant {
        let Some(rate) = self.rate.as_ref().filter(|_| self.queue.len() < self.size.get()) else { return now };
        let is_recent = |asker| self.recent.get(&asker).is_some_and(|at| now - *at < RECENT);
        let needed = if self.queue.askers().all(is_recent) { RESERVE + 1 } else { 1 };
        self.calls.holds_at(rate, needed)
    }

    /// Takes the questions of the next call.
    fn take(&mut self, now: Instant) -> Vec<Question<K, V>> {
        if now - self.pruned >= RECENT {
            self.recent.retain(|_, at| now - *at < RECENT);
            self.pruned = now;
        }
        let size = self.size.get();
        let mut taken = Vec::with_capacity(self.queue.len().min(size));
        while taken.len() < size
            && let Some((asker, question)) = self.queue.pop()
        {
            // The caller has given up.
            if question.answer.is_closed() {
                continue;
            }
            self.recent.insert(asker, now);
            taken.push(question);
        }
        if let Some(rate) = self.rate.as_ref().filter(|_| (1..size).contains(&taken.len())) {
            self.calls.take(rate, now);
        }
        taken
    }
}

async fn run<K, V, F, Fut>(mut requests: mpsc::Receiver<Request<K, V>>, call: F)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + 'static,
    F: Fn(Arc<[K]>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<V>, PocketBaseError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut pending = Pending::new(Instant::now());
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
type Waiting<K, V> = HashMap<K, Vec<oneshot::Sender<Answer<V>>>>;

/// Removes duplicate questions and keeps the order.
fn merged<K: Clone + Eq + Hash, V>(questions: Vec<Question<K, V>>) -> (Arc<[K]>, Waiting<K, V>) {
    let mut keys = Vec::with_capacity(questions.len());
    let mut waiting = Waiting::with_capacity(questions.len());
    for Question { key, answer } in questions {
        let waiters = waiting.entry(key.clone()).or_default();
        if waiters.is_empty() {
            keys.push(key);
        }
        waiters.push(answer);
    }
    (keys.into(), waiting)
}

fn deliver<K: Eq + Hash, V: Clone>(keys: &[K], mut waiting: Waiting<K, V>, answers: Answer<Vec<V>>) {
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_questions_take_a_handful_of_calls() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let batcher = Arc::new(Batcher::start(move |keys: Arc<[usize]>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                Ok(keys.iter().map(|key| key * 2).collect())
            }
        }));
        let asking = (0..1000).map(|i| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { (i, batcher.ask(i % 500).await.unwrap()) })
        });
        for answered in asking.collect::<Vec<_>>() {
            let (i, answer) = answered.await.unwrap();
            assert_eq!(answer, i % 500 * 2);
        }
        assert!(calls.load(Ordering::Relaxed) <= 20, "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_one_after_the_other_share_calls_and_the_first_does_not_wait() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let batcher = Arc::new(Batcher::start(move |keys: Arc<[usize]>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(keys.to_vec()) }
        }));
        let start = Instant::now();
        let asking = (0..1000usize).map(|i| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move {
                tokio::time::sleep_until(start + Duration::from_millis(i as u64)).await;
                assert_eq!(batcher.ask(i).await, Ok(i));
                Instant::now()
            })
        });
        let mut answered = Vec::new();
        for task in asking.collect::<Vec<_>>() {
            answered.push(task.await.unwrap());
        }
        assert!(answered[0] < start + Duration::from_millis(5));
        assert!((15..=25).contains(&calls.load(Ordering::Relaxed)), "{calls:?} calls within a second");
    }

    /// Answers each call after 10 ms, and counts calls.
    fn slow(calls: &Arc<AtomicUsize>) -> Arc<Batcher<usize, usize>> {
        let calls = Arc::clone(calls);
        Arc::new(Batcher::start(move |keys: Arc<[usize]>| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(keys.to_vec())
            }
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn all_questions_of_a_full_connection_take_one_call() {
        let calls = Arc::default();
        let start = Instant::now();
        let answers = slow(&calls).ask_all(Asker(1), 0..BATCH).await;
        assert!(answers.into_iter().eq((0..BATCH).map(Ok)));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(start.elapsed() < Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_shrink_until_pocketbase_keeps_up_and_grow_again() {
        let (sizes, cost) = (Arc::new(std::sync::Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(40)));
        let (seen, each) = (Arc::clone(&sizes), Arc::clone(&cost));
        // A fixed number of milliseconds per question, and a timeout after three seconds.
        let batcher = Batcher::start(move |keys: Arc<[usize]>| {
            seen.lock().unwrap().push(keys.len());
            let took = Duration::from_millis((each.load(Ordering::Relaxed) * keys.len()) as u64);
            async move {
                let limit = Duration::from_secs(3);
                tokio::time::sleep(took.min(limit)).await;
                if took < limit { Ok(keys.to_vec()) } else { Err(PocketBaseError::Timeout) }
            }
        });
        let failed = |answers: Vec<Answer<usize>>| answers.iter().filter(|answer| answer.is_err()).count();
        let mut failures = Vec::new();
        for _ in 0..6 {
            failures.push(failed(batcher.ask_all(Asker(1), 0..BATCH).await));
        }
        assert_eq!((failures[0], failures[5]), (BATCH, 0), "a call of {BATCH} takes 10 s: {failures:?}");
        assert_eq!(sizes.lock().unwrap().last(), Some(&BATCH_MIN), "{sizes:?}");
        cost.store(0, Ordering::Relaxed);
        batcher.ask_all(Asker(1), 0..4 * BATCH).await;
        sizes.lock().unwrap().clear();
        batcher.ask_all(Asker(1), 0..BATCH).await;
        assert_eq!(*sizes.lock().unwrap(), [BATCH]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_of_one_asker_do_not_hold_up_another_s_single_one() {
        let calls = Arc::default();
        let batcher = slow(&calls);
        let greedy = Arc::clone(&batcher);
        let all = tokio::spawn(async move { greedy.ask_all(Asker(1), 0..100 * BATCH).await.len() });
        tokio::task::yield_now().await;
        let start = Instant::now();
        assert_eq!(batcher.ask_all(Asker(2), [1_000_000]).await, [Ok(1_000_000)]);
        // The calls under way, and the next one.
        assert!(start.elapsed() <= Duration::from_millis(21), "{:?}", start.elapsed());
        assert_eq!(all.await.unwrap(), 100 * BATCH);
    }

    #[tokio::test(start_paused = true)]
    async fn an_asker_without_pause_does_not_impose_its_pauses_on_others() {
        let calls = Arc::default();
        let batcher = slow(&calls);
        let looping = Arc::clone(&batcher);
        let asking = tokio::spawn(async move {
            for i in 0.. {
                let _ = looping.ask_all(Asker(1), [i]).await;
            }
        });
        let begin = Instant::now();
        for i in 0..10 {
            // Another asker asks now and then.
            tokio::time::sleep(Duration::from_millis(333)).await;
            let start = Instant::now();
            assert_eq!(batcher.ask_all(Asker(100 + i), [usize::MAX]).await, [Ok(usize::MAX)]);
            assert!(start.elapsed() <= Duration::from_millis(11), "{:?}", start.elapsed());
        }
        asking.abort();
        let per_second = calls.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
        assert!(per_second < 22.0, "{per_second} calls per second");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_given_up_costs_no_call() {
        let calls = Arc::default();
        let batcher = slow(&calls);
        for i in 0..BURST + 5 {
            let waiting = Arc::clone(&batcher);
            // Answered while there are tokens, given up afterwards.
            let _ = tokio::time::timeout(Duration::from_millis(11), waiting.ask_all(Asker(1), [i])).await;
        }
        let before = calls.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(calls.load(Ordering::Relaxed), before);
    }

    #[tokio::test]
    async fn a_failed_call_fails_its_questions_and_a_short_answer_only_the_missing() {
        let batcher = Batcher::start(|keys: Arc<[u8]>| async move {
            if keys.contains(&0) { Err(PocketBaseError::Timeout) } else { Ok(Vec::<u8>::new()) }
        });
        assert_eq!(batcher.ask(0).await, Err(PocketBaseError::Timeout));
        assert_eq!(batcher.ask(1).await, Err(PocketBaseError::Abandoned));
    }
}
