//! Fan-out allocates nothing per subscriber: a message costs the same number of allocations for 10 and for 300
//! subscribers.

mod harness;

use harness::DEADLINE;
use harness::node::{self, Node};
use harness::pocketbase::PocketBase;
use harness::process::free_port;
use konvert_gateway::auth::Account;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::{Payload, Publication};
use konvert_gateway::stream::ClientStream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const CHANNEL: &str = "room:a";
const MESSAGES: usize = 100;
/// More messages than the history keeps, so that the buffers have reached their final size.
const WARM_UP: usize = 600;

#[test]
fn fan_out_allocates_nothing_per_subscriber() {
    let runtime = single_threaded();
    let account = runtime.block_on(async {
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{}", free_port())).await;
        let token = pocketbase.user("anna").await.token;
        node::account(&node::auth(&pocketbase), &token).await
    });
    // With more messages at once, a queue grows for a moment, which is an allocation.
    for at_once in [1, 4, 16] {
        let [few, many] = [10, 300].map(|subscribers| allocations(&runtime, &account, subscribers, at_once));
        println!("{at_once} at once: {few:.2} allocations for 10 subscribers, {many:.2} for 300");
        // One allocation per subscriber would make a difference of 290.
        assert!((many - few).abs() < 1.0);
    }
}

/// A runtime on the current thread, whose allocations are counted.
fn single_threaded() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Average number of allocations per message, publishing included, with `at_once` messages published together.
fn allocations(runtime: &Runtime, account: &Arc<Account>, subscribers: usize, at_once: usize) -> f64 {
    let mut room = runtime.block_on(Room::of(account, subscribers));
    let mut publish = |times: usize| {
        runtime.block_on(async {
            for _ in 0..times {
                timeout(DEADLINE, room.publish(at_once)).await.expect("everybody reads it");
            }
        });
    };
    publish(WARM_UP);
    allocation_counter::measure(|| publish(MESSAGES)).count_total as f64 / MESSAGES as f64
}

/// Subscribers on real sockets. The clients read on a separate thread.
struct Room {
    node: Node,
    data: Payload,
    subscribers: usize,
    /// Bytes read by the clients so far, and bytes expected in the end.
    read: Arc<AtomicUsize>,
    expected: usize,
}

impl Room {
    async fn of(account: &Arc<Account>, subscribers: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let read = Arc::<AtomicUsize>::default();
        let (address, counter) = (listener.local_addr().expect("an address"), Arc::clone(&read));
        // The thread ends with the last connection.
        std::thread::spawn(move || single_threaded().block_on(clients(address, subscribers, counter)));
        let mut node = Node::start(Arc::clone(account)).await;
        let mut expected = 0;
        for _ in 0..subscribers {
            let (stream, _) = listener.accept().await.expect("a client");
            expected += node.subscribe(CHANNEL, Arc::new(ClientStream::from(stream))).await;
        }
        let data = Payload::trusted(format!(r#""{}""#, "x".repeat(256)).into());
        Self { node, data, subscribers, read, expected }
    }

    /// Publishes, and waits until every client has read the messages, so that no socket is ever full.
    async fn publish(&mut self, messages: usize) {
        let before = self.node.offset();
        self.node.publish(CHANNEL, &self.data, messages as u64, self.subscribers as u64).await;
        for offset in before + 1..=self.node.offset() {
            let publication = Publication { offset, at: 0, data: self.data.clone(), info: None };
            self.expected +=
                self.subscribers * encode::push(Format::WebSocketJson, CHANNEL, &Push::Publication(&publication)).len();
        }
        while self.read.load(Ordering::Relaxed) < self.expected {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.read.load(Ordering::Relaxed), self.expected);
    }
}

async fn clients(address: SocketAddr, count: usize, read: Arc<AtomicUsize>) {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let read = Arc::clone(&read);
        clients.push(tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                read.fetch_add(bytes, Ordering::Relaxed);
            }
        }));
    }
    for client in clients {
        client.await.expect("a client");
    }
}
