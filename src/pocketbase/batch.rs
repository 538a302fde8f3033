//! Many questions, few calls: what is asked while calls are under way goes into the next one together. While there is
//! much to ask, calls that are not full keep a distance, so that their number does not depend on that of the askers.

use super::PocketBaseError;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Questions that may wait for a call. Whoever asks beyond that waits for a place.
const QUEUE: usize = 4096;
/// Calls to PocketBase at once. More would only queue there.
const IN_FLIGHT: usize = 4;
/// Questions in one call; PocketBase takes up to 500.
const BATCH: usize = 200;
/// Between the beginnings of two calls, unless the second is full. Who asks after a longer pause does not wait.
const DISTANCE: Duration = Duration::from_millis(50);

type Answer<V> = Result<V, PocketBaseError>;

/// Asks PocketBase in batches. The same question asked twice goes out once. Cloning shares the queue; when the
/// last clone is dropped, its task ends.
pub struct Batcher<K, V> {
    questions: mpsc::Sender<(K, oneshot::Sender<Answer<V>>)>,
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
        let (questions, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(receiver, Arc::new(call)));
        Self { questions }
    }

    pub async fn ask(&self, key: K) -> Answer<V> {
        let (answer, answered) = oneshot::channel();
        // Neither fails while `self` lives, short of a panic in the batch's task.
        self.questions.send((key, answer)).await.map_err(|_| PocketBaseError::Abandoned)?;
        answered.await.map_err(|_| PocketBaseError::Abandoned)?
    }
}

async fn run<K, V, F, Fut>(mut questions: mpsc::Receiver<(K, oneshot::Sender<Answer<V>>)>, call: Arc<F>)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + 'static,
    F: Fn(Arc<[K]>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<V>, PocketBaseError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut asked = Vec::new();
    let mut next = Instant::now();
    loop {
        // First a free slot, then the questions: what arrives meanwhile joins the batch.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        if questions.recv_many(&mut asked, BATCH).await == 0 {
            return;
        }
        while asked.len() < BATCH {
            let room = BATCH - asked.len();
            let more = timeout_at(next, questions.recv_many(&mut asked, room)).await;
            if !matches!(more, Ok(1..)) {
                break;
            }
        }
        next = Instant::now() + DISTANCE;
        let mut waiting: HashMap<K, Vec<oneshot::Sender<Answer<V>>>> = HashMap::new();
        for (key, answer) in asked.drain(..) {
            waiting.entry(key).or_default().push(answer);
        }
        let call = Arc::clone(&call);
        tokio::spawn(async move {
            let keys: Arc<[K]> = waiting.keys().cloned().collect();
            let answers = call(Arc::clone(&keys)).await;
            for (i, key) in keys.iter().enumerate() {
                let answer = match &answers {
                    Ok(values) => values.get(i).cloned().ok_or(PocketBaseError::Abandoned),
                    Err(error) => Err(error.clone()),
                };
                for waiter in waiting.remove(key).into_iter().flatten() {
                    // Whoever gave up waiting needs no answer.
                    let _ = waiter.send(answer.clone());
                }
            }
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn a_failed_call_fails_its_questions_and_a_short_answer_only_the_missing() {
        let batcher = Batcher::start(|keys: Arc<[u8]>| async move {
            if keys.contains(&0) { Err(PocketBaseError::Timeout) } else { Ok(Vec::<u8>::new()) }
        });
        assert_eq!(batcher.ask(0).await, Err(PocketBaseError::Timeout));
        assert_eq!(batcher.ask(1).await, Err(PocketBaseError::Abandoned));
    }
}
