//! The gateway with everything on: a real PocketBase with its hooks, each client a user of its own with a membership in
//! a private room, access checked, history and recovery on. Messages come as PocketBase's hooks post them.

use super::{Audience, Cores, Server};
use crate::dialect::Ticket;
use crate::dialect::centrifuge::Json;
use crate::harness::gateway::Gateway;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use crate::harness::{SECRET, tokens};
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use jsonwebtoken::Algorithm;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use std::io::Error;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::{Builder, Runtime};

const HOOKS: &str = "/hooks/pocketbase";
/// As many changes as the hooks post at once; see `gateway.config.js`.
const BATCH: usize = 100;

struct Running {
    gateway: Gateway,
    _pocketbase: PocketBase,
    _redis: Option<Redis>,
    runtime: Runtime,
}

pub fn start(program: &Path, with_redis: bool, audience: Audience, cores: &Cores) -> Server {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let port = free_port();
    let (pocketbase, crowd) = runtime.block_on(async {
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{port}")).await;
        let crowd = Crowd::seed(&pocketbase, audience).await;
        (pocketbase, crowd)
    });
    pin(&cores.server);
    let redis = with_redis.then(Redis::start);
    let url = redis.as_ref().map(Redis::url);
    let threads = cores.server.len().to_string();
    let mut settings = vec![
        ("GATEWAY_THREADS", threads.as_str()),
        // All clients come from one address.
        ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
        // What is posted here is not in PocketBase's outbox, so reading that would be the end of it.
        ("GATEWAY_PULL_INTERVAL", "3600"),
    ];
    settings.extend(url.as_deref().map(|url| ("GATEWAY_REDIS_URL", url)));
    let (gateway, boot, newest) = runtime.block_on(async {
        let gateway = Gateway::start_program(program, port, &pocketbase.url, &settings).await;
        let (boot, newest) = pocketbase.outbox().await;
        gateway.metric_reaches("gateway_relay_cursor", newest as f64).await;
        (gateway, boot, newest)
    });
    pin(&cores.client);
    let channels: Arc<[String]> = crowd.rooms.iter().map(|room| format!("room:{room}")).collect();
    let tickets = audience.tickets(|client, room| Ticket {
        room,
        channel: channels[room as usize].clone(),
        token: crowd.users[client].token.clone(),
    });
    let address = ([127, 0, 0, 1], port).into();
    let lane = HookLane { http: Http::new(address), signer: Signer::new(&SECRET.into()), boot, newest, channels };
    let mut server = vec![gateway.process.pid()];
    server.extend(redis.as_ref().map(Redis::pid));
    let watched = Watched { server, beside: vec![pocketbase.process.pid()] };
    let running = Rc::new(Running { gateway, _pocketbase: pocketbase, _redis: redis, runtime });
    let asked = Rc::clone(&running);
    Server {
        watched,
        address,
        dialect: Arc::new(Json),
        tickets,
        // The hooks post one request at a time, with all that has been committed meanwhile.
        lanes: vec![Box::new(lane)],
        calls: Some(Box::new(move || {
            asked.runtime.block_on(asked.gateway.metric_sum("gateway_pocketbase_seconds_count"))
        })),
        running: Box::new(running),
    }
}

/// Users with their tokens, and their private rooms.
struct Crowd {
    users: Vec<User>,
    rooms: Vec<String>,
}

impl Crowd {
    /// Puts them into PocketBase's tables, as copies of ones that PocketBase has made: through its API they would take
    /// an hour.
    async fn seed(pocketbase: &PocketBase, audience: Audience) -> Self {
        const SCRIPT: &str = r"
import secrets, sqlite3, string, sys
path, user, room, membership, users, rooms = sys.argv[1:]
users, rooms = int(users), int(rooms)
db = sqlite3.connect(path, timeout=30)
db.row_factory = sqlite3.Row
new_id = lambda: ''.join(secrets.choice(string.ascii_lowercase) for _ in range(15))
def like(table, id):
    return dict(db.execute('SELECT * FROM %s WHERE id = ?' % table, [id]).fetchone())
def insert(table, row):
    fields, places = ','.join('`%s`' % name for name in row), ','.join('?' * len(row))
    db.execute('INSERT INTO %s (%s) VALUES (%s)' % (table, fields, places), list(row.values()))
user, room, membership = like('users', user), like('rooms', room), like('room_members', membership)
made = []
for _ in range(rooms):
    made.append(new_id())
    insert('rooms', {**room, 'id': made[-1]})
    print(made[-1])
for i in range(users):
    id = new_id()
    insert('users', {**user, 'id': id, 'tokenKey': secrets.token_hex(25), 'email': id + '@example.com'})
    insert('room_members', {**membership, 'id': new_id(), 'user': id, 'room': made[i // (users // rooms)]})
    print(id)
db.commit()";
        let owner = pocketbase.user("owner").await;
        let member = pocketbase.user("member").await;
        let room = pocketbase.room(&owner).await;
        let membership = pocketbase.join(&room, &member).await;
        let membership = membership["id"].as_str().expect("an id").to_owned();
        let (clients, rooms) = (audience.clients.to_string(), audience.rooms.to_string());
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(pocketbase.database());
        let output = command.args([&member.id, &room, &membership, &clients, &rooms]).output().expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut ids: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let users = ids.split_off(audience.rooms as usize);
        let (keys, collection) = tokens::signing_keys(pocketbase, &users).await;
        let token = |(id, key): (String, String)| {
            let token = tokens::sign(Algorithm::HS256, &tokens::claims(&id, &collection), &key);
            User { id, token }
        };
        Self { users: users.into_iter().zip(keys).map(token).collect(), rooms: ids }
    }
}

struct HookLane {
    http: Http,
    signer: Signer,
    /// The run of PocketBase that the events are said to be of.
    boot: String,
    /// The last number that the outbox has given.
    newest: u64,
    channels: Arc<[String]>,
}

impl Lane for HookLane {
    fn batch(&self) -> usize {
        BATCH
    }

    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        let mut body = format!(r#"{{"boot":"{}","events":["#, self.boot).into_bytes();
        for (seq, message) in (self.newest + 1..).zip(messages) {
            if seq > self.newest + 1 {
                body.push(b',');
            }
            let channel = &self.channels[message.room as usize];
            body.extend_from_slice(format!(r#"{{"seq":{seq},"channels":["{channel}"],"data":"#).as_bytes());
            message.json(&mut body);
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        let (timestamp, signature) = self.signer.sign(SystemTime::now(), "POST", HOOKS, &body);
        let headers = format!("{TIMESTAMP}: {timestamp}\r\n{SIGNATURE}: {signature}\r\n");
        match self.http.post(HOOKS, &headers, &body)? {
            202 => {
                self.newest += messages.len() as u64;
                Ok(())
            }
            status => Err(Error::other(format!("the gateway answered {status}"))),
        }
    }
}
