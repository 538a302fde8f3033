//! The gateway with full features: a real PocketBase with hooks, access checks, history and recovery. Each client is a
//! separate user with a membership in a private room. Messages come as posts of PocketBase's hooks, or through
//! PocketBase's REST API.

use super::crowd::Crowd;
use super::pocketbase::RestLane;
use super::{Audience, Cores, LANES, Server, Source};
use crate::dialect::Ticket;
use crate::dialect::centrifuge::Encodings;
use crate::harness::SECRET;
use crate::harness::gateway::Gateway;
use crate::harness::pocketbase::PocketBase;
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use std::io::Error;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::{Builder, Runtime};

const HOOKS: &str = "/hooks/pocketbase";
struct Running {
    gateway: Gateway,
    _pocketbase: PocketBase,
    _redis: Option<Redis>,
    runtime: Runtime,
}

pub struct Variant {
    pub with_redis: bool,
    pub encodings: Encodings,
    /// Largest number of messages in one post.
    pub batch: usize,
}

pub fn start(program: &Path, variant: Variant, audience: Audience, source: Source, cores: &Cores) -> Server {
    // If PocketBase works for every message, PocketBase shares the server's cores. Otherwise PocketBase is asked only
    // now and then and stays off those cores.
    if source == Source::Rest {
        pin(&cores.server);
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let port = free_port();
    let (pocketbase, crowd) = runtime.block_on(async {
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{port}")).await;
        let crowd = Crowd::seed(&pocketbase, audience).await;
        (pocketbase, crowd)
    });
    pin(&cores.server);
    let redis = variant.with_redis.then(Redis::start);
    let url = redis.as_ref().map(Redis::url);
    let threads = cores.server.len().to_string();
    let mut settings = vec![
        ("GATEWAY_THREADS", threads.as_str()),
        // The clients share one address.
        ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
    ];
    if source == Source::Direct {
        // The posted events are not in PocketBase's outbox, so a read of the outbox would break the sequence.
        settings.push(("GATEWAY_PULL_INTERVAL", "3600"));
    }
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
        number: client,
        room,
        channel: channels[room as usize].clone(),
        token: crowd.users[client].token.clone(),
    });
    let address = ([127, 0, 0, 1], port).into();
    let lanes: Vec<Box<dyn Lane>> = match source {
        // The hooks post one request at a time, with the changes committed meanwhile.
        Source::Direct => {
            let (http, signer) = (Http::new(address), Signer::new(&SECRET.into()));
            vec![Box::new(HookLane { http, signer, boot, newest, channels, batch: variant.batch })]
        }
        Source::Rest => RestLane::several(LANES, pocketbase.port, &crowd),
    };
    let mut server = vec![gateway.process.pid()];
    server.extend(redis.as_ref().map(Redis::pid));
    let watched = Watched { server, beside: vec![pocketbase.process.pid()] };
    let running = Rc::new(Running { gateway, _pocketbase: pocketbase, _redis: redis, runtime });
    let asked = Rc::clone(&running);
    Server {
        watched,
        address,
        dialect: Arc::new(variant.encodings),
        tickets,
        lanes,
        calls: Some(Box::new(move || {
            asked.runtime.block_on(asked.gateway.metric_sum("gateway_pocketbase_seconds_count"))
        })),
        _running: Box::new(running),
    }
}

struct HookLane {
    http: Http,
    signer: Signer,
    /// Boot id of PocketBase's run in the posted events.
    boot: String,
    /// The last sequence number of the outbox.
    newest: u64,
    channels: Arc<[String]>,
    batch: usize,
}

impl Lane for HookLane {
    fn batch(&self) -> usize {
        self.batch
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
