//! Calls of many clients, joined into few commands. In a reconnect storm, thousands of clients come within a second, and
//! a command for each would cost more than the work inside Redis.

use crate::broker::BrokerError;
use crate::tasks;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Calls per request to Redis, so that no request blocks Redis for long.
const MAX_CALLS: usize = 256;

type Answer<A> = Result<A, BrokerError>;
pub type Answers<A> = BoxFuture<'static, Answer<Vec<A>>>;

/// Joins concurrent calls into shared requests. Each call has an item of type `T` and an answer of type `A`.
pub struct Gather<T, A>(Arc<Inner<T, A>>);

struct Inner<T, A> {
    /// Never held across an await.
    waiting: Mutex<Vec<Call<T, A>>>,
    /// Sends the items to Redis. Returns the answers in the order of the items.
    send: Box<dyn Fn(Vec<T>) -> Answers<A> + Send + Sync>,
}

struct Call<T, A> {
    item: T,
    answer: oneshot::Sender<Answer<A>>,
}

impl<T, A> Call<T, A> {
    fn answer(self, answer: Answer<A>) {
        // The caller may have stopped waiting.
        let _ = self.answer.send(answer);
    }
}

impl<T: Clone + Send + 'static, A: Send + 'static> Gather<T, A> {
    pub fn new(send: impl Fn(Vec<T>) -> Answers<A> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { waiting: Mutex::default(), send: Box::new(send) }))
    }

    /// Sends the item in a request that starts after all tasks that are ready now have run, and may have added calls.
    /// Returns the answer to the item. If the caller stops waiting before the request is sent, the item is left out. If
    /// Redis is unavailable, all calls of the request fail; unreadable data fails the calls that need the data.
    pub async fn call(&self, item: T) -> Answer<A> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = self.0.waiting.lock();
            waiting.push(Call { item, answer });
            waiting.len() == 1
        };
        if is_first {
            // A task of its own, since the first caller may stop waiting.
            let inner = Arc::clone(&self.0);
            tokio::spawn(tasks::contained(async move { inner.send_all().await }));
        }
        answered.await.unwrap_or_else(|_| Err(BrokerError::stopping()))
    }
}

impl<T: Clone, A> Inner<T, A> {
    async fn send_all(&self) {
        yield_now().await;
        let mut calls = std::mem::take(&mut *self.waiting.lock());
        calls.retain(|call| !call.answer.is_closed());
        let mut requests = Vec::new();
        while !calls.is_empty() {
            let rest = calls.split_off(calls.len().min(MAX_CALLS));
            requests.push(self.send(std::mem::replace(&mut calls, rest)));
        }
        join_all(requests).await;
    }

    async fn send(&self, calls: Vec<Call<T, A>>) {
        let items = calls.iter().map(|call| call.item.clone()).collect();
        match (self.send)(items).await {
            Ok(answers) => calls.into_iter().zip(answers).for_each(|(call, answer)| call.answer(Ok(answer))),
            Err(BrokerError::Corrupt(_)) if calls.len() > 1 => {
                join_all(calls.into_iter().map(|call| self.send_alone(call))).await;
            }
            Err(error) => calls.into_iter().for_each(|call| call.answer(Err(error.clone()))),
        }
    }

    async fn send_alone(&self, call: Call<T, A>) {
        let missing = || BrokerError::Corrupt("Redis gave no answer to a call".into());
        let answers = (self.send)(vec![call.item.clone()]).await;
        call.answer(answers.and_then(|mut answers| answers.pop().ok_or_else(missing)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// Doubles numbers, and notes the size of each request.
    fn doubling() -> (Gather<u32, u32>, Arc<Mutex<Vec<usize>>>) {
        let sizes = Arc::<Mutex<Vec<usize>>>::default();
        let noted = Arc::clone(&sizes);
        let send = move |items: Vec<u32>| {
            noted.lock().push(items.len());
            async move { Ok(items.into_iter().map(|item| 2 * item).collect()) }.boxed()
        };
        (Gather::new(send), sizes)
    }

    #[tokio::test]
    async fn calls_of_tasks_that_are_ready_share_requests() {
        let (gather, sizes) = doubling();
        let calls = (0..600).map(|item| gather.call(item));
        let answers: Vec<u32> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..600).map(|item| 2 * item).collect::<Vec<_>>());
        assert_eq!(*sizes.lock(), [256, 256, 88]);
        assert_eq!(gather.call(7).await.unwrap(), 14);
        assert_eq!(sizes.lock().len(), 4);
    }

    /// A departed client must not be added after the departure.
    #[tokio::test]
    async fn an_item_of_a_caller_who_has_given_up_is_not_sent() {
        let (gather, sizes) = doubling();
        assert!(gather.call(1).now_or_never().is_none());
        assert_eq!(gather.call(2).await.unwrap(), 4);
        assert_eq!(*sizes.lock(), [1]);
    }

    #[tokio::test]
    async fn a_failure_reaches_all_callers_of_the_request() {
        let gather: Gather<u32, u32> = Gather::new(|_| async { Err(BrokerError::Conflict) }.boxed());
        let answers = join_all([gather.call(1), gather.call(2)]).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(BrokerError::Conflict))));
    }

    #[tokio::test]
    async fn unreadable_data_of_a_client_fails_no_other_client() {
        let send = |items: Vec<u32>| {
            let corrupt = items.contains(&3);
            async move { if corrupt { Err(BrokerError::Corrupt(String::new())) } else { Ok(items) } }.boxed()
        };
        let gather = Gather::new(send);
        let answers = join_all((0..9).map(|item| gather.call(item))).await;
        let failed: Vec<usize> = (0..9).filter(|&item| answers[item].is_err()).collect();
        assert_eq!(failed, [3]);
    }
}
