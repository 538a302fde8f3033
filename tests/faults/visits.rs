//! Visitors: users who join a room, stay for a while, and are removed while others go on writing. Visitors must not
//! get events committed after their removal.

use super::clients::Client;
use super::subscription::{Access, Shared, State, Visit};
use super::topology::{Topology, World, count, lock};
use crate::harness::rng::Rng;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Sizes of the groups of visitors that come and go together.
const GROUPS: [usize; 3] = [1, 2, 3];
/// Long, since an abandoned request may still be carried out after later requests.
const ANSWER: Duration = Duration::from_secs(20);

pub struct Visits {
    groups: Vec<Group>,
}

struct Group {
    visitors: Vec<Visitor>,
    world: Arc<World>,
    superuser: String,
    rng: Rng,
}

struct Visitor {
    user: String,
    client: Shared,
}

/// A visitor's membership, with the visitor's index in the group.
struct Guest {
    place: usize,
    membership: String,
}

impl Visits {
    /// Numbers the visitors' clients from `first`.
    pub async fn prepare(topology: &Topology, first: usize, root: &Rng, settle: &CancellationToken) -> Self {
        let (pocketbase, world) = (topology.pocketbase.lock().await, &topology.world);
        let mut number = first;
        let mut groups = Vec::new();
        for (place, size) in GROUPS.into_iter().enumerate() {
            let mut visitors = Vec::new();
            for _ in 0..size {
                let user = pocketbase.user(&format!("visitor{number}")).await;
                let rng = root.fork(20_000 + number as u64);
                visitors
                    .push(Visitor { user: user.id, client: Client::visitor(number, user.token, world, rng, settle) });
                number += 1;
            }
            let (world, superuser) = (Arc::clone(world), pocketbase.superuser_token().to_owned());
            groups.push(Group { visitors, world, superuser, rng: root.fork(10_000 + place as u64) });
        }
        Self { groups }
    }

    pub fn clients(&self) -> Vec<Shared> {
        let visitors = self.groups.iter().flat_map(|group| &group.visitors);
        visitors.map(|visitor| Arc::clone(&visitor.client)).collect()
    }

    /// Admits and removes visitors until `stop`, except while the gate is locked. In the end, every visitor is out.
    pub async fn run(self, gate: Arc<RwLock<()>>, stop: CancellationToken) {
        join_all(self.groups.into_iter().map(|group| group.run(&gate, &stop))).await;
    }
}

impl Group {
    async fn run(mut self, gate: &RwLock<()>, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let room = self.rng.below(self.world.rooms.len());
            let guests: Vec<Guest> =
                (0..self.visitors.len()).map(|place| Guest { place, membership: self.id() }).collect();
            // Drawn in advance, as in the storm.
            let (stay, pause) = (self.rng.millis(300..5_000), self.rng.millis(50..1_000));
            let elsewhere = self
                .rng
                .chance(30)
                .then(|| (room + 1 + self.rng.below(self.world.rooms.len() - 1)) % self.world.rooms.len());
            let recover: Vec<bool> = guests.iter().map(|_| self.rng.chance(60)).collect();
            {
                let _open = gate.read().await;
                join_all(guests.iter().zip(recover).map(|(guest, recover)| self.admit(guest, room, recover))).await;
            }
            rest(stay, stop).await;
            {
                let _open = gate.read().await;
                join_all(guests.iter().map(|guest| self.remove(guest, room, elsewhere))).await;
            }
            // The next visit begins once every visitor knows of the end of the last one.
            while !stop.is_cancelled() && guests.iter().any(|guest| !self.is_out(guest, room)) {
                sleep(Duration::from_millis(20)).await;
            }
            rest(pause, stop).await;
        }
    }

    /// A new record's id.
    fn id(&mut self) -> String {
        (0..15).map(|_| *self.rng.pick(b"abcdefghijklmnopqrstuvwxyz0123456789") as char).collect()
    }

    async fn admit(&self, guest: &Guest, room: usize, recover: bool) {
        let visitor = &self.visitors[guest.place];
        let id = &self.world.rooms[room].id;
        let body = json!({"id": guest.membership, "room": id, "user": visitor.user, "role": "member"});
        self.send("POST", "collections/room_members/records", &body, "not_unique").await;
        count(&self.world.counts.visits);
        let subscription = &mut lock(&visitor.client)[room];
        let (membership, begin) = (guest.membership.clone(), subscription.log.seen.len());
        subscription.visits.push(Visit { membership, begin });
        if !recover {
            subscription.position = None;
        }
        (subscription.access, subscription.state) = (Access::Granted, State::Out(Instant::now()));
    }

    /// Deletes the membership, sometimes after moving it to another room.
    async fn remove(&self, guest: &Guest, room: usize, elsewhere: Option<usize>) {
        lock(&self.visitors[guest.place].client)[room].access = Access::Withdrawn;
        let path = format!("collections/room_members/records/{}", guest.membership);
        if let Some(elsewhere) = elsewhere {
            self.send("PATCH", &path, &json!({"room": self.world.rooms[elsewhere].id}), "").await;
            count(&self.world.counts.moves);
        }
        self.send("DELETE", &path, &Value::Null, "").await;
    }

    fn is_out(&self, guest: &Guest, room: usize) -> bool {
        lock(&self.visitors[guest.place].client)[room].state == State::Refused
    }

    /// Repeats a request until its effect exists, even if an answer was lost: a creation until the record exists, a
    /// deletion until the record is gone.
    async fn send(&self, method: &str, path: &str, body: &Value, exists: &str) {
        let headers = [("authorization", self.superuser.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let url = format!("{}/api/{path}", self.world.pocketbase);
        loop {
            match timeout(ANSWER, self.world.http.send(method, &url, &headers, body.clone())).await {
                Ok(Ok(response)) => {
                    let done = match response.status {
                        200..300 => true,
                        400 => !exists.is_empty() && response.text.contains(exists),
                        404 => method == "DELETE",
                        _ => false,
                    };
                    if !done {
                        let what = format!("{method} {path} with {}: {}", response.status, response.text);
                        self.world.violation(format!("PocketBase refused {what}"));
                    }
                    return;
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn rest(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
