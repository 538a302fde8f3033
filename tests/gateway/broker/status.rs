//! The contract of every broker: user status.

use crate::broker::{Factory, Recorder, generous, until};
use futures_util::future::join_all;
use konvert_gateway::broker::status_store::{Choice, End, Lease, Mode, Status, UserStatus};
use konvert_gateway::broker::{Broker, Retention};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

const USER: &str = "ann";

fn brief() -> Retention {
    let [presence_ttl, status_grace] = [900, 300].map(Duration::from_millis);
    Retention { presence_ttl, status_grace, ..generous() }
}

/// A broker, and a recorder subscribed to the user's status channel.
struct Stage {
    broker: Arc<dyn Broker>,
    recorder: Arc<Recorder>,
}

impl Stage {
    async fn new(factory: &impl Factory) -> Self {
        Self::with(factory, brief()).await
    }

    async fn with(factory: &impl Factory, retention: Retention) -> Self {
        let broker = factory.broker(retention).await;
        let recorder = Recorder::listen(&*broker).await;
        broker.subscribe(&format!("status:{USER}")).await.unwrap();
        broker.sweep().await.unwrap();
        Self { broker, recorder }
    }

    async fn lease(&self, client: &str, idle: bool) -> Choice {
        self.broker.lease(&[lease(client, idle)]).await.unwrap()[0]
    }

    async fn end(&self, client: &str, closed: bool) {
        self.broker.end(&[end(client, closed, 0)]).await.unwrap();
    }

    async fn choose(&self, mode: Mode) -> UserStatus {
        let (choice, state) = self.broker.choose(USER, Some(mode)).await.unwrap();
        assert_eq!(choice.mode, mode);
        state
    }

    async fn now(&self) -> UserStatus {
        self.broker.statuses(&[USER.to_owned()]).await.unwrap()[0].unwrap()
    }

    /// Sweeps until the user has `status`, as every node does continuously.
    async fn becomes(&self, status: Status) -> UserStatus {
        until(&format!("{status:?}"), async || {
            self.broker.sweep().await.unwrap();
            let now = self.now().await;
            (now.status == status).then_some(now)
        })
        .await
    }

    /// Every announced change up to the present state.
    async fn told(&self) -> Vec<Status> {
        let now = self.now().await;
        let last = || self.recorder.states(USER).last().copied();
        until("the last change", async || last().is_none_or(|last| last == now).then_some(())).await;
        let states = self.recorder.states(USER);
        assert!(states.is_sorted_by_key(|state| state.version), "{states:?}");
        states.iter().map(|state| state.status).collect()
    }
}

fn lease(client: &str, idle: bool) -> Lease {
    let (user, client) = (USER.into(), client.into());
    Lease { user, client, idle, age: Duration::ZERO, choice: Choice::default() }
}

fn end(client: &str, closed: bool, age: u64) -> End {
    let (user, client) = (USER.into(), client.into());
    End { user, client, age: Duration::from_millis(age), closed }
}

fn millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn near(state: UserStatus, time: u64) {
    let seen = state.last_seen.unwrap();
    assert!(seen.abs_diff(time) < 150, "{seen} is not near {time}");
}

pub async fn a_user_is_online_while_one_connection_lives(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    stage.lease("phone", false).await;
    stage.lease("laptop", false).await;
    stage.lease("laptop", false).await;
    stage.end("phone", true).await;
    stage.end("phone", true).await;
    assert_eq!(stage.now().await.status, Status::Online);
    stage.end("laptop", true).await;
    let closed = millis();
    assert_eq!(stage.now().await.status, Status::Online);
    near(stage.becomes(Status::Offline).await, closed);
    assert_eq!(stage.told().await, [Status::Online, Status::Offline]);
}

pub async fn a_reload_goes_unnoticed(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    for page in ["1", "2", "3"] {
        stage.lease(page, false).await;
        stage.end(page, true).await;
        sleep(Duration::from_millis(50)).await;
        stage.broker.sweep().await.unwrap();
    }
    stage.lease("4", false).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(25)).await;
        stage.broker.sweep().await.unwrap();
    }
    assert_eq!(stage.now().await.status, Status::Online);
    assert_eq!(stage.told().await, [Status::Online]);
}

pub async fn a_user_has_a_limited_number_of_connections(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    let enter = async |client: &str, limit| stage.broker.enter(&lease(client, false), limit).await.unwrap().is_some();
    let count = async || stage.broker.connections(USER).await.unwrap();
    assert_eq!(count().await, 0);
    assert!(!enter("1", Some(0)).await);
    assert_eq!(count().await, 0, "a refusal changes nothing");
    assert!(enter("1", Some(1)).await && enter("1", Some(1)).await, "a connection is no other of itself");
    assert!(!enter("2", Some(1)).await);
    assert!(enter("2", Some(2)).await && enter("3", None).await);
    assert!(!enter("4", Some(3)).await);
    assert_eq!(count().await, 3);
    stage.end("1", true).await;
    assert!(enter("4", Some(3)).await);
    until("the end of the leases", async || enter("5", Some(1)).await.then_some(())).await;
    assert_eq!((count().await, stage.broker.connections("bob").await.unwrap()), (1, 0));
    assert_eq!(stage.told().await, [Status::Online]);
}

pub async fn connections_that_come_at_the_same_time_are_counted_each(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    let leases: Vec<Lease> = (0..100).map(|number| lease(&number.to_string(), false)).collect();
    let entered = join_all(leases.iter().map(|lease| stage.broker.enter(lease, Some(10)))).await;
    let accepted: Vec<bool> = entered.into_iter().map(|choice| choice.unwrap().is_some()).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 10);
    assert_eq!(stage.broker.connections(USER).await.unwrap(), 10);
    assert_eq!(stage.told().await, [Status::Online]);
}

pub async fn an_expired_lease_of_a_dead_node_does_not_end_the_grace(factory: &impl Factory) {
    let (presence_ttl, status_grace) = (Duration::from_millis(600), Duration::from_secs(60));
    let stage = Stage::with(factory, Retention { presence_ttl, status_grace, ..generous() }).await;
    stage.lease("dead", false).await;
    stage.lease("reloads", false).await;
    stage.end("reloads", true).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(25)).await;
        stage.broker.sweep().await.unwrap();
    }
    assert_eq!(stage.now().await.status, Status::Online);
    assert_eq!(stage.told().await, [Status::Online]);
}

pub async fn a_lost_connection_ends_without_grace(factory: &impl Factory) {
    let stage = Stage::with(factory, generous()).await;
    stage.lease("1", false).await;
    let lost = end("1", false, 5000);
    stage.broker.end(&[lost]).await.unwrap();
    let state = stage.now().await;
    assert_eq!(state.status, Status::Offline);
    near(state, millis() - 5000);
    assert_eq!(stage.told().await, [Status::Online, Status::Offline]);
}

pub async fn a_lease_expires_once(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    let old = Lease { age: Duration::from_millis(400), ..lease("dies", false) };
    stage.broker.lease(&[old, lease("lives", false)]).await.unwrap();
    let begun = millis();
    while millis() < begun + 1200 {
        sleep(Duration::from_millis(20)).await;
        stage.lease("lives", false).await;
        stage.broker.sweep().await.unwrap();
    }
    assert_eq!(stage.told().await, [Status::Online]);
    let lived = millis();
    // Every node sweeps.
    let sweeps = async || {
        while stage.now().await.status != Status::Offline {
            stage.broker.sweep().await.unwrap();
        }
    };
    tokio::join!(sweeps(), sweeps(), sweeps());
    near(stage.now().await, lived);
    assert_eq!(stage.told().await, [Status::Online, Status::Offline]);
}

pub async fn modes_and_idleness(factory: &impl Factory) {
    let stage = Stage::with(factory, generous()).await;
    stage.lease("1", false).await;
    stage.lease("2", true).await;
    stage.lease("1", true).await;
    assert_eq!(stage.now().await.status, Status::Away);
    stage.lease("2", false).await;
    assert_eq!(stage.choose(Mode::Dnd).await.status, Status::Dnd);
    stage.lease("2", true).await;
    stage.lease("3", false).await;
    assert_eq!(stage.choose(Mode::Away).await.status, Status::Away);
    assert_eq!(stage.choose(Mode::Away).await.status, Status::Away);
    assert_eq!(stage.choose(Mode::Online).await.status, Status::Online);
    let (choice, state) = stage.broker.choose(USER, None).await.unwrap();
    assert_eq!((choice.mode, state), (Mode::Online, stage.now().await));
    let told = [Status::Online, Status::Away, Status::Online, Status::Dnd, Status::Away, Status::Online];
    assert_eq!(stage.told().await, told);
}

pub async fn invisible_users_appear_offline(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    stage.lease("1", false).await;
    let hidden = stage.choose(Mode::Invisible).await;
    near(hidden, millis());
    assert_eq!(hidden.status, Status::Offline);
    // An invisible user stays offline through a new connection, a real departure and a return.
    sleep(Duration::from_millis(200)).await;
    stage.lease("2", true).await;
    stage.end("1", true).await;
    stage.end("2", false).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(25)).await;
        stage.broker.sweep().await.unwrap();
    }
    assert_eq!(stage.now().await, hidden);
    assert_eq!(stage.lease("3", false).await.mode, Mode::Invisible);
    assert_eq!(stage.now().await, hidden);
    assert_eq!(stage.told().await, [Status::Online, Status::Offline]);
    stage.choose(Mode::Online).await;
    assert_eq!(stage.told().await, [Status::Online, Status::Offline, Status::Online]);
}

pub async fn a_lease_restores_the_newest_mode(factory: &impl Factory) {
    let stage = Stage::with(factory, generous()).await;
    let at = |mode, at| Lease { choice: Choice { mode, at }, ..lease("1", false) };
    assert_eq!(stage.broker.lease(&[at(Mode::Invisible, 7)]).await.unwrap()[0].mode, Mode::Invisible);
    assert_eq!(stage.now().await.status, Status::Offline);
    assert_eq!(stage.broker.lease(&[at(Mode::Online, 6)]).await.unwrap()[0].at, 7);
    assert_eq!(stage.told().await, []);
    assert_eq!(stage.broker.lease(&[at(Mode::Dnd, 8)]).await.unwrap()[0].mode, Mode::Dnd);
    assert_eq!(stage.told().await, [Status::Dnd]);
}

pub async fn unknown_users_are_offline(factory: &impl Factory) {
    let stage = Stage::with(factory, generous()).await;
    let strange = ["", "a}b", "%7D", "ü {x}", USER];
    let users: Vec<String> = strange.iter().map(|&user| user.to_owned()).collect();
    // A new store may not know yet.
    for state in stage.broker.statuses(&users).await.unwrap().into_iter().flatten() {
        assert_eq!((state.status, state.last_seen), (Status::Offline, None));
    }
    let named = |user: &&str| Lease { user: (*user).into(), ..lease("c", false) };
    stage.broker.lease(&strange[1..].iter().map(named).collect::<Vec<_>>()).await.unwrap();
    let many: Vec<String> = (0..2000).map(|n| format!("user{n}")).chain(users).collect();
    let states = stage.broker.statuses(&many).await.unwrap();
    let online = states.iter().map(|state| state.is_some_and(|state| state.status == Status::Online));
    assert_eq!(online.collect::<Vec<_>>(), [vec![false; 2001], vec![true; 4]].concat());
    assert_eq!(stage.told().await, [Status::Online]);
}

pub async fn consecutive_statuses_always_differ(factory: &impl Factory) {
    let stage = Stage::new(factory).await;
    let mut seed = 17_u64;
    let mut any = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..400 {
        let client = any(3).to_string();
        match any(8) {
            0..3 => drop(stage.lease(&client, any(3) == 0).await),
            3..5 => stage.end(&client, any(2) == 0).await,
            5 => drop(stage.choose([Mode::Online, Mode::Away, Mode::Dnd, Mode::Invisible][any(4) as usize]).await),
            6 => sleep(Duration::from_millis(any(40))).await,
            _ => stage.broker.sweep().await.unwrap(),
        }
    }
    let told = stage.told().await;
    assert!(told.len() > 30, "{told:?}");
    for pair in [&[Status::Offline], &told[..]].concat().windows(2) {
        assert_ne!(pair[0], pair[1], "{told:?}");
    }
}

mod in_redis {
    use super::*;
    use crate::broker::{client, connect};
    use crate::harness::redis::Redis;
    use konvert_gateway::broker::status_store::StatusStore;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_node_gets_each_change_once() {
        let redis = Redis::start();
        let [one, other] = [connect(&redis, brief()).await, connect(&redis, brief()).await];
        let recorders = [Recorder::listen(&*one).await, Recorder::listen(&*other).await];
        for node in [&one, &other] {
            node.subscribe("status:ann").await.unwrap();
            node.sweep().await.unwrap();
        }
        one.lease(&[lease("1", false)]).await.unwrap();
        other.lease(&[lease("2", false)]).await.unwrap();
        other.choose(USER, Some(Mode::Dnd)).await.unwrap();
        // Both nodes die; a remaining node sweeps.
        let told = [Status::Online, Status::Dnd, Status::Offline];
        until("all changes on both", async || {
            tokio::join!(async { one.sweep().await.unwrap() }, async { other.sweep().await.unwrap() });
            recorders.iter().all(|recorder| recorder.states(USER).len() == told.len()).then_some(())
        })
        .await;
        let [first, second] = recorders.map(|recorder| recorder.states(USER));
        assert_eq!(first.iter().map(|state| state.status).collect::<Vec<_>>(), told);
        assert_eq!(first, second);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leases_restore_lost_data() {
        let redis = Redis::start();
        let broker = connect(&redis, Retention { presence_ttl: Duration::from_secs(3), ..generous() }).await;
        broker.sweep().await.unwrap();
        broker.lease(&[lease("1", false)]).await.unwrap();
        let (choice, hidden) = broker.choose(USER, Some(Mode::Invisible)).await.unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis.client()).unwrap();

        let users = [USER.to_owned(), "nobody".to_owned()];
        assert_eq!(broker.statuses(&users).await.unwrap(), [None, None]);
        broker.sweep().await.unwrap();
        assert_eq!(broker.statuses(&users).await.unwrap(), [None, None]);
        broker.lease(&[Lease { choice, ..lease("1", false) }]).await.unwrap();
        let back = broker.statuses(&users).await.unwrap()[0].unwrap();
        assert_eq!((back.status, hidden.status), (Status::Offline, Status::Offline));
        // A user without a renewed lease is offline after the length of one lease.
        until("certainty", async || {
            broker.sweep().await.unwrap();
            broker.statuses(&users).await.unwrap()[1]
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_an_outage_nodes_may_renew_leases_before_they_expire() {
        let redis = Redis::start();
        let broker = connect(&redis, brief()).await;
        broker.sweep().await.unwrap();
        broker.lease(&[lease("back", false)]).await.unwrap();
        broker.lease(&[Lease { user: "bob".into(), ..lease("dead", false) }]).await.unwrap();
        // Redis is unreachable for longer than a lease.
        sleep(Duration::from_millis(1200)).await;
        let users = [USER.to_owned(), "bob".to_owned()];
        let of = async || {
            broker.statuses(&users).await.unwrap().into_iter().map(|it| it.unwrap().status).collect::<Vec<_>>()
        };
        broker.sweep().await.unwrap();
        assert_eq!(of().await, [Status::Online, Status::Online]);
        until("the end of the one that does not come back", async || {
            broker.lease(&[lease("back", false)]).await.unwrap();
            broker.sweep().await.unwrap();
            (of().await == [Status::Online, Status::Offline]).then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn gateways_share_the_sweeps() {
        let redis = Redis::start();
        let nodes = [connect(&redis, generous()).await, connect(&redis, generous()).await];
        let begun = std::time::Instant::now();
        for _ in 0..10 {
            for node in &nodes {
                node.sweep().await.unwrap();
            }
        }
        // A sweep of 64 buckets for every 0.75 s. The first is called twice, since Redis does not have the script yet.
        let sweeps = begun.elapsed().as_millis() as u64 / 750 + 1;
        let calls = redis.calls("evalsha");
        assert!((64..=64 * (sweeps + 1)).contains(&calls), "{calls} calls for {sweeps} sweeps");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_of_a_dead_node_leave_once_on_every_node() {
        let redis = Redis::start();
        let [one, other] = [connect(&redis, brief()).await, connect(&redis, brief()).await];
        let recorders = [Recorder::listen(&*one).await, Recorder::listen(&*other).await];
        for node in [&one, &other] {
            node.subscribe("room:a").await.unwrap();
        }
        one.add_presence(&[("room:a".into(), client("u", "dies"))]).await.unwrap();
        until("its end", async || {
            for (node, id) in [(&one, "1"), (&other, "2")] {
                node.add_presence(&[("room:a".into(), client("u", id))]).await.unwrap();
            }
            (one.presence("room:a").await.unwrap().len() == 2).then_some(())
        })
        .await;
        for recorder in recorders {
            until("the leave", async || recorder.movements("room:a").contains(&"-dies".to_owned()).then_some(())).await;
            sleep(Duration::from_millis(100)).await;
            assert_eq!(recorder.movements("room:a"), ["+1", "+2", "-dies"]);
        }
    }
}
