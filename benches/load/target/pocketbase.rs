//! PocketBase's own realtime: server-sent events.

use super::crowd::Crowd;
use super::peer::{file, local};
use super::{Audience, Cores, LANES, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::sse::Realtime;
use crate::harness::pocketbase::{PocketBase, program};
use crate::harness::process::free_port;
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use serde_json::json;
use std::io::Error;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Builder;

/// Bytes that PocketBase adds around a message's text; the text is shorter by as much, for events of the same length as
/// on every server.
const AROUND: usize = 180;

/// PocketBase alone, with public collections, since the capacity is 0 with a rule to check. Subscribers get the
/// messages of the only room, or of the room they name.
pub fn start(audience: Audience, cores: &Cores) -> Server {
    let (port, folder) = (free_port(), TempDir::new().expect("a temporary directory"));
    let at = |name: &str| folder.path().join(name);
    let mut command = Command::new(program());
    command.arg("serve").arg("--dir").arg(at("data")).arg("--hooksDir").arg(at("hooks")).arg("--publicDir");
    command.arg(at("public")).arg("--migrationsDir").arg(file("pocketbase")).arg("--automigrate=false");
    command.args(["--http", &format!("127.0.0.1:{port}")]);
    let process = peer::start("PocketBase", &mut command, local(port), cores);
    let collection = if audience.rooms == 1 { "messages" } else { "messages_in_rooms" };
    let tickets = audience.tickets(|_, room| {
        let query = format!("%7B%22query%22%3A%7B%22room%22%3A%22room{room}%22%7D%7D");
        let channel = match audience.rooms {
            1 => format!("{collection}/*"),
            _ => format!("{collection}/*?options={query}"),
        };
        Ticket { room, channel, ..Ticket::default() }
    });
    let rooms: Arc<[String]> = (0..audience.rooms).map(|room| format!("room{room}")).collect();
    let lane = || RestLane {
        http: Http::new(local(port)),
        target: format!("/api/collections/{collection}/records"),
        headers: String::new(),
        author: None,
        rooms: Arc::clone(&rooms),
    };
    Server {
        watched: Watched::alone(process.pid()),
        address: local(port),
        dialect: Arc::new(Realtime),
        tickets,
        lanes: lanes(lane),
        calls: None,
        _running: Box::new((process, folder)),
    }
}

/// PocketBase with the chat's schema and rules, as beside the gateway, but without the gateway's hooks.
pub fn start_with_rules(audience: Audience, cores: &Cores) -> Server {
    pin(&cores.server);
    let no_hooks = TempDir::new().expect("a temporary directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (pocketbase, crowd) = runtime.block_on(async {
        let pocketbase = PocketBase::start_with("http://127.0.0.1:9", no_hooks.path(), &[]).await;
        let crowd = Crowd::seed(&pocketbase, audience).await;
        (pocketbase, crowd)
    });
    let tickets = audience.tickets(|client, room| Ticket {
        number: client,
        room,
        channel: "messages/*".to_owned(),
        token: crowd.users[client].token.clone(),
    });
    Server {
        watched: Watched::alone(pocketbase.process.pid()),
        address: local(pocketbase.port),
        dialect: Arc::new(Realtime),
        tickets,
        lanes: RestLane::several(LANES, pocketbase.port, &crowd),
        calls: None,
        _running: Box::new((pocketbase, no_hooks, runtime)),
    }
}

/// Creates a record for each message.
pub struct RestLane {
    http: Http,
    target: String,
    headers: String,
    author: Option<String>,
    rooms: Arc<[String]>,
}

impl RestLane {
    /// Lanes of members of the chat; every member writes into the first room.
    pub fn several(count: usize, port: u16, crowd: &Crowd) -> Vec<Box<dyn Lane>> {
        let rooms: Arc<[String]> = crowd.rooms.as_slice().into();
        let lane = |author: &crate::harness::pocketbase::User| RestLane {
            http: Http::new(local(port)),
            target: "/api/collections/messages/records".to_owned(),
            headers: format!("Authorization: {}\r\n", author.token),
            author: Some(author.id.clone()),
            rooms: Arc::clone(&rooms),
        };
        crowd.users.iter().cycle().take(count).map(|author| Box::new(lane(author)) as Box<dyn Lane>).collect()
    }
}

impl Lane for RestLane {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        for message in messages {
            let mut content = Vec::new();
            message.mark.write(&mut content);
            content.resize((message.size - AROUND).max(content.len()), b'x');
            let (room, content) = (&self.rooms[message.room as usize], String::from_utf8_lossy(&content));
            let mut record = json!({"room": room, "content": content});
            if let Some(author) = &self.author {
                record["author"] = author.as_str().into();
                record["type"] = "text".into();
            }
            match self.http.post(&self.target, &self.headers, record.to_string().as_bytes())? {
                200..300 => {}
                status => return Err(Error::other(format!("PocketBase answered {status}"))),
            }
        }
        Ok(())
    }
}
