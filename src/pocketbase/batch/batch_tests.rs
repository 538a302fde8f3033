//! Tests of the batching: numbers of calls, sizes of calls, and fairness between askers.

use super::call_size::{BATCH, BATCH_MIN};
use super::pending::BURST;
use super::*;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
    let (sizes, cost) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(40)));
    let (seen, each) = (Arc::clone(&sizes), Arc::clone(&cost));
    // A fixed number of milliseconds per question, and a timeout after three seconds.
    let batcher = Batcher::start(move |keys: Arc<[usize]>| {
        seen.lock().push(keys.len());
        let took = Duration::from_millis((each.load(Ordering::Relaxed) * keys.len()) as u64);
        async move {
            let limit = Duration::from_secs(3);
            tokio::time::sleep(took.min(limit)).await;
            if took < limit { Ok(keys.to_vec()) } else { Err(PocketBaseError::Timeout) }
        }
    });
    let failed = |answers: Vec<QuestionResult<usize>>| answers.iter().filter(|answer| answer.is_err()).count();
    let mut failures = Vec::new();
    for _ in 0..6 {
        failures.push(failed(batcher.ask_all(Asker(1), 0..BATCH).await));
    }
    assert_eq!((failures[0], failures[5]), (BATCH, 0), "a call of {BATCH} takes 10 s: {failures:?}");
    assert_eq!(sizes.lock().last(), Some(&BATCH_MIN), "{sizes:?}");
    cost.store(0, Ordering::Relaxed);
    batcher.ask_all(Asker(1), 0..4 * BATCH).await;
    sizes.lock().clear();
    batcher.ask_all(Asker(1), 0..BATCH).await;
    assert_eq!(*sizes.lock(), [BATCH]);
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
