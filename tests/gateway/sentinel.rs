//! Gateways on Redis with three real sentinels: killed masters, a silent replica, absent sentinels, wrong URLs.

use crate::harness::World;
use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::process::free_port;
use crate::harness::sentinels::{PASSWORD, SENTINEL_PASSWORD, SERVICE, Sentinels};
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::{Broker, Entry, HistoryQuery, Mark, Retention};
use konvert_gateway::protocol::Payload;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Failovers take seconds.
const DEADLINE: Duration = Duration::from_secs(60);

async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn in_order(client: &mut Client, messages: Range<usize>) {
    for i in messages {
        assert_eq!(client.message().await, format!("message {i}"));
    }
}

fn retention() -> Retention {
    let hour = Duration::from_secs(3600);
    Retention { size: 1000, ttl: hour, position_ttl: hour, presence_ttl: hour, ..Retention::default() }
}

fn entry(seq: u64) -> Entry {
    Entry { seq, at: 0, channel: "c".into(), data: Payload::trusted(seq.to_string().into()), barrier: false }
}

async fn connect(url: &str) -> std::sync::Arc<RedisBroker> {
    RedisBroker::connect(url, "test", retention()).await.expect("a URL of ours")
}

/// Publishes in sequence, with retries until success.
async fn publish_all(broker: &RedisBroker, entries: Range<u64>) {
    for seq in entries {
        until("the publication to be taken", async || broker.publish(&[entry(seq)]).await.ok()).await;
    }
}

/// Offsets and contents of the whole history.
async fn history(broker: &RedisBroker) -> Vec<(u64, String)> {
    let history = until("the history", async || broker.history("c", HistoryQuery::default()).await.ok()).await;
    let brief = |data: &Payload| String::from_utf8_lossy(data.as_bytes()).into_owned();
    history.publications.iter().map(|publication| (publication.offset, brief(&publication.data))).collect()
}

fn numbered(range: Range<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, n.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_die_and_clients_get_everything() {
    let mut sentinels = Sentinels::start(1);
    let mut world = World::start_beside(2, &[("GATEWAY_REDIS_URL", &sentinels.url())]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let mut carol = world.subscriber(1, &users[2], &room).await;
    let mut count = 0;
    for round in 0..2 {
        let master = sentinels.master().expect("there is one");
        for i in 0..60 {
            if i == 30 {
                sentinels.nodes[master].kill();
            }
            world.pocketbase.write(&room, &users[0], &format!("message {}", count + i)).await;
        }
        // The clients' deadline begins after the failover, since sentinels that vote for different leaders vote again
        // only after twice the failover timeout.
        sentinels.wait("another master", |it| it.master().is_some_and(|now| now != master));
        in_order(&mut bob, count..count + 60).await;
        in_order(&mut carol, count..count + 60).await;
        count += 60;
        if round == 0 {
            // The former master returns empty, as a replica, and is the next to be promoted.
            sentinels.nodes[master].restart();
            sentinels.wait("it to follow", |it| it.sentinels.iter().all(|sentinel| sentinel.followers() == 1));
        }
    }
    for gateway in &mut world.gateways {
        assert_eq!(gateway.metric("gateway_session_panics_total").await, 0.0);
        gateway.ready().await;
        let log = gateway.process.log();
        assert!(log.matches("Redis has a new master").count() >= 3, "{log}");
        for secret in [PASSWORD, SENTINEL_PASSWORD] {
            assert!(!log.contains(secret) && !log.contains(&secret.replace(' ', "%20")), "{log}");
        }
    }
}

/// Acknowledged publications survive a failover, with the same offsets.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_publications_survive_a_failover() {
    let mut sentinels = Sentinels::start(2);
    let (publisher, other) = (connect(&sentinels.url()).await, connect(&sentinels.url()).await);
    publisher.begin(Mark::default()).await.expect("Redis is there");
    publish_all(&publisher, 1..201).await;
    let master = sentinels.master().expect("there is one");
    sentinels.nodes[master].kill();
    publish_all(&publisher, 201..401).await;
    until("the other gateway to be ready", async || other.check().await.ok()).await;
    assert_eq!(history(&other).await, numbered(1..401));

    // The last replica falls silent: publications fail until the sentinels mark the replica as down.
    let now = sentinels.master().expect("there is one");
    assert_ne!(now, master);
    sentinels.wait("the other replica to follow", |it| it.sentinels.iter().all(|sentinel| sentinel.followers() == 1));
    let replica = (0..3).find(|&node| node != master && node != now).expect("a third");
    until("the replica to be waited for", async || {
        let began = Instant::now();
        sentinels.nodes[replica].pause();
        let refused = publisher.publish(&[entry(401)]).await.err().map(|error| error.to_string());
        sentinels.nodes[replica].resume();
        assert!(began.elapsed() < Duration::from_secs(10));
        refused.filter(|error| error.contains("no replica"))
    })
    .await;
    sentinels.nodes[replica].pause();
    publish_all(&publisher, 401..411).await;
    sentinels.nodes[replica].resume();
    assert_eq!(history(&other).await, numbered(1..411));
}

/// Publications after a failover wait for a replica that is up but does not follow the new master yet: another failover
/// would lose them. A replica that never follows holds them up for some seconds only.
#[tokio::test(flavor = "multi_thread")]
async fn publications_wait_for_the_replicas_of_a_new_master() {
    let mut sentinels = Sentinels::start(2);
    let publisher = connect(&sentinels.url()).await;
    publisher.begin(Mark::default()).await.expect("Redis is there");
    // The last replica can neither become the master nor log in at a new master.
    for (name, value) in [("replica-priority", "0"), ("masterauth", "wrong")] {
        sentinels.set(2, name, value);
    }
    // Sentinels read the priority every ten seconds.
    sentinels.wait("the priority to be known", |it| {
        it.sentinels.iter().all(|sentinel| sentinel.replicas().iter().any(|replica| replica["slave-priority"] == "0"))
    });
    publish_all(&publisher, 1..11).await;
    sentinels.nodes[0].kill();
    sentinels.wait("the failover", |it| it.master() == Some(1));
    let mut began = None;
    let waited = until("a publication without a replica", async || match publisher.publish(&[entry(11)]).await {
        Ok(_) => Some(began.unwrap_or_else(Instant::now).elapsed()),
        Err(error) => {
            if error.to_string().contains("no replica") {
                began.get_or_insert_with(Instant::now);
            }
            None
        }
    })
    .await;
    assert!(waited > Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_over_tls() {
    let certificates = Certificates::make();
    let mut sentinels = Sentinels::start_with_tls(&certificates, 1);
    let ca = certificates.path("ca.pem");
    let settings = [("GATEWAY_REDIS_URL", &*sentinels.url()), ("GATEWAY_REDIS_CA_FILE", &ca)];
    let world = World::start_beside(2, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut clients = [world.subscriber(0, &users[1], &room).await, world.subscriber(1, &users[2], &room).await];
    for i in 0..40 {
        if i == 20 {
            let master = sentinels.master().expect("there is one");
            sentinels.nodes[master].kill();
        }
        world.pocketbase.write(&room, &users[0], &format!("message {i}")).await;
    }
    for client in &mut clients {
        in_order(client, 0..40).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_sentinels_are_tolerated() {
    let mut sentinels = Sentinels::start(1);
    sentinels.sentinels[0].process.kill();
    let broker = connect(&sentinels.url()).await;
    broker.check().await.expect("two sentinels are enough");
    publish_all(&broker, 1..11).await;
    // The known master stays in use without sentinels.
    for sentinel in &mut sentinels.sentinels {
        sentinel.process.kill();
    }
    publish_all(&broker, 11..21).await;
    broker.check().await.expect("the master is known");
    assert_eq!(history(&broker).await, numbered(1..21));
    let late = connect(&sentinels.url()).await;
    let error = late.check().await.expect_err("nobody knows the master").to_string();
    assert!(error.contains("the master is not known") && error.contains("sentinel 127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_url_is_an_error_with_the_reason() {
    let sentinels = Sentinels::start(0);
    let port = sentinels.sentinels[0].port;
    let [password, of_sentinels] = [PASSWORD, SENTINEL_PASSWORD].map(|it| it.replace(' ', "%20"));
    let redis = sentinels.nodes[0].port();
    for (url, told) in [
        (format!("redis-sentinel://:{password}@127.0.0.1:{port}/{SERVICE}"), "sentinel_pass"),
        (format!("redis-sentinel://:{password}@127.0.0.1:{port}/{SERVICE}?sentinel_pass=wrong"), "sentinel_pass"),
        (format!("redis-sentinel://:{password}@127.0.0.1:{port}/other?sentinel_pass={of_sentinels}"), "\"other\""),
        (
            format!("redis-sentinel://:wrong@127.0.0.1:{port}/{SERVICE}?sentinel_pass={of_sentinels}"),
            "authentication failed",
        ),
        (format!("redis-sentinel://127.0.0.1:{redis}/{SERVICE}?sentinel_pass={password}"), "no sentinel"),
        (format!("redis-sentinel://127.0.0.1:{}/{SERVICE}", free_port()), "refused"),
    ] {
        let error = connect(&url).await.check().await.expect_err(&url).to_string();
        assert!(error.contains(told) && !error.contains(PASSWORD), "{url}: {error}");
    }
}
