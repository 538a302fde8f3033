//! Leases on the real in-process broker, on a paused clock.

use super::*;
use crate::auth::Account;
use crate::broker::Retention;
use crate::broker::memory::MemoryBroker;
use crate::broker::status_store::Status;
use crate::config::Sources;
use crate::outbox::Outbox;
use std::time::{SystemTime, UNIX_EPOCH};

struct Node {
    broker: Arc<MemoryBroker>,
    statuses: Arc<UserStatuses>,
    register: Arc<Connections>,
    _tasks: ([AbortOnDropHandle<()>; 2], AbortOnDropHandle<()>),
}

impl Node {
    fn start() -> Self {
        let environment = vec![("GATEWAY_SECRET".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
        let config = Config::load(&Sources { environment, ..Sources::default() }).unwrap();
        let (presence_ttl, status_grace) = (config.presence_ttl, config.status_grace);
        let broker = MemoryBroker::new(Retention { presence_ttl, status_grace, ..Retention::default() });
        let presence = Presence::start(broker.clone());
        let register = Arc::<Connections>::default();
        let statuses =
            UserStatuses::new(&config, broker.clone(), presence, Arc::clone(&register), Metrics::new().unwrap());
        let tasks = (statuses.start_reports(), statuses.start_renewal());
        Self { broker, statuses, register, _tasks: tasks }
    }

    async fn connection(&self, client: &str) -> Arc<Connection> {
        let outbox = Outbox::alone(1 << 20);
        let id = self.register.of("ann").len() as u64;
        let connection = Connection::new(id, "ann", client, &outbox, Account::blocking(&[]));
        self.register.add(&connection);
        assert!(self.statuses.enter(&connection, None, Instant::now() + Duration::from_secs(5)).await);
        connection
    }

    async fn status(&self) -> Status {
        self.statuses.all_reported().await;
        self.broker.statuses(&["ann".to_owned()]).await.unwrap()[0].unwrap().status
    }
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_while_there_are_signs_of_life() {
    let node = Node::start();
    let connection = node.connection("1").await;
    for _ in 0..20 {
        pass(25).await;
        connection.record_activity();
        assert_eq!(node.status().await, Status::Online);
    }
    node.statuses.leave(&connection, true);
    pass(9).await;
    assert_eq!(node.status().await, Status::Online);
    pass(3).await;
    assert_eq!(node.status().await, Status::Offline);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_lost_and_who_speaks_again_is_back() {
    let node = Node::start();
    let connection = node.connection("1").await;
    pass(29).await;
    assert_eq!(node.status().await, Status::Online);
    pass(3).await;
    assert_eq!(node.status().await, Status::Offline);
    let seen = node.broker.statuses(&["ann".to_owned()]).await.unwrap()[0].unwrap().last_seen.unwrap();
    // The system clock does not follow the paused clock: the user was last seen half a minute before now.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!((29_000..33_000).contains(&(now - seen)), "{}", now - seen);
    connection.record_activity();
    pass(2).await;
    assert_eq!(node.status().await, Status::Online);
    node.statuses.leave(&connection, false);
    assert_eq!(node.status().await, Status::Offline);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_beside_a_busy_one() {
    let node = Node::start();
    let [one, two] = [node.connection("1").await, node.connection("2").await];
    node.statuses.set_idle(&one, true);
    assert_eq!(node.status().await, Status::Online);
    node.statuses.set_idle(&two, true);
    assert_eq!(node.status().await, Status::Away);
    node.statuses.leave(&one, true);
    node.statuses.set_idle(&two, false);
    assert_eq!(node.status().await, Status::Online);
    node.statuses.withdraw();
    assert_eq!(node.status().await, Status::Online);
    pass(11).await;
    assert_eq!(node.status().await, Status::Offline);
}

#[tokio::test(start_paused = true)]
async fn an_invisible_user_stays_hidden_until_the_last_connection_ends() {
    let node = Node::start();
    let [one, two] = [node.connection("1").await, node.connection("2").await];
    node.statuses.choose("ann", Some(Mode::Invisible)).await.unwrap();
    assert!(!node.statuses.presence.shows("ann"));
    for (connection, is_hidden) in [(one, true), (two, false)] {
        node.register.remove(&connection);
        node.statuses.leave(&connection, true);
        assert_eq!(!node.statuses.presence.shows("ann"), is_hidden);
    }
}

/// The end of a connection may reach the broker before its lease.
#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_after_its_connection_is_ended() {
    let node = Node::start();
    let connection = node.connection("1").await;
    let lease = node.statuses.local().leases_of(&[&connection]).remove(0);
    node.statuses.leave(&connection, true);
    node.statuses.all_reported().await;
    assert_eq!(node.statuses.connections("ann").await.unwrap(), 0);
    assert!(Arc::clone(&node.statuses).take_lease(lease, connection, None).await.unwrap());
    node.statuses.all_reported().await;
    assert_eq!(node.statuses.connections("ann").await.unwrap(), 0);
}
