//! Centrifugo with the gateway's features: tokens, presence, and a history with recovery. Messages come through the
//! server API, up to a batch per call.

use super::peer::{Gentle, configuration, install, local};
use super::{Audience, Cores, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::centrifuge::Encodings;
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use std::io::Error;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// The same values as in `peers/centrifugo.json`.
const KEY: &str = "X-API-Key: benchmark\r\n";
const SECRET: &[u8] = b"benchmark-secret";

/// `batch`: largest number of messages in one call.
pub fn start(with_redis: bool, batch: usize, audience: Audience, cores: &Cores) -> Server {
    let (port, folder) = (free_port(), TempDir::new().expect("a temporary directory"));
    pin(&cores.server);
    let redis = with_redis.then(Redis::start);
    let engine = if with_redis { "redis" } else { "memory" };
    let url = redis.as_ref().map(Redis::url).unwrap_or_default();
    let file = folder.path().join("config.json");
    let values = [("port", port.to_string()), ("engine", engine.to_owned()), ("redis", url)];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    std::fs::write(&file, configuration("centrifugo.json", &values)).expect("its configuration can be written");
    let mut command = Command::new(install("centrifugo"));
    command.arg("--config").arg(&file).env("GOMAXPROCS", cores.server.len().to_string());
    let process = peer::start("centrifugo", &mut command, local(port), cores);
    let key = EncodingKey::from_secret(SECRET);
    let tickets = audience.tickets(|number, room| {
        let claims = json!({"sub": format!("user{number}")});
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token");
        Ticket { number, room, channel: format!("room{room}"), token }
    });
    let mut server = vec![process.pid()];
    server.extend(redis.as_ref().map(Redis::pid));
    Server {
        watched: Watched { server, beside: Vec::new() },
        address: local(port),
        dialect: Arc::new(Encodings::Json),
        tickets,
        lanes: lanes(|| CentrifugoLane { http: Http::new(local(port)), batch }),
        calls: None,
        _running: Box::new((Gentle(process), redis, folder)),
    }
}

struct CentrifugoLane {
    http: Http,
    batch: usize,
}

impl Lane for CentrifugoLane {
    fn batch(&self) -> usize {
        self.batch
    }

    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        let mut body = br#"{"commands":["#.to_vec();
        for (number, message) in messages.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(format!(r#"{{"publish":{{"channel":"room{}","data":"#, message.room).as_bytes());
            message.json(&mut body);
            body.extend_from_slice(b"}}");
        }
        body.extend_from_slice(b"]}");
        match self.http.post("/api/batch", KEY, &body)? {
            200 => Ok(()),
            status => Err(Error::other(format!("Centrifugo answered {status}"))),
        }
    }
}
