//! The clients present in one channel. Most channels belong to a single user and have a client or two; some have
//! thousands.

use crate::protocol::ClientInfo;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tokio::time::{Duration, Instant};

/// Largest number of clients kept in a plain list.
const FEW: usize = 8;

#[derive(Default)]
pub(super) struct Crowd {
    clients: Clients,
    /// No client was last seen before this instant.
    oldest: Option<Instant>,
}

enum Clients {
    Few(Vec<PresentClient>),
    Many(Table),
}

/// Clients, and the number of clients per user. Guests are not counted.
#[derive(Default)]
struct Table {
    clients: HashSet<PresentClient, foldhash::fast::RandomState>,
    users: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
}

impl Table {
    /// Returns whether the client is new.
    fn replace(&mut self, present: PresentClient) -> bool {
        let user = Arc::clone(&present.info.user);
        let known = self.clients.replace(present);
        if let Some(known) = &known {
            self.uncount(&known.info.user);
        }
        if !user.is_empty() {
            *self.users.entry(user).or_default() += 1;
        }
        known.is_none()
    }

    fn take(&mut self, client: &str) -> Option<ClientInfo> {
        let info = self.clients.take(client)?.info;
        self.uncount(&info.user);
        Some(info)
    }

    fn uncount(&mut self, user: &str) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// A present client; identity is the client's unique name.
struct PresentClient {
    info: ClientInfo,
    seen: Instant,
}

impl Borrow<str> for PresentClient {
    fn borrow(&self) -> &str {
        &self.info.client
    }
}

impl Hash for PresentClient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.info.client.hash(state);
    }
}

impl PartialEq for PresentClient {
    fn eq(&self, other: &Self) -> bool {
        self.info.client == other.info.client
    }
}

impl Eq for PresentClient {}

impl Crowd {
    pub fn len(&self) -> usize {
        match &self.clients {
            Clients::Few(few) => few.len(),
            Clients::Many(many) => many.clients.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records a sign of life; returns whether the client is new.
    pub fn see(&mut self, info: ClientInfo, now: Instant) -> bool {
        self.oldest.get_or_insert(now);
        let present = PresentClient { info, seen: now };
        match &mut self.clients {
            Clients::Many(many) => return many.replace(present),
            Clients::Few(few) => {
                if let Some(known) = few.iter_mut().find(|known| **known == present) {
                    *known = present;
                    return false;
                }
                if few.len() < FEW {
                    // Plain growth would reserve four places at once, in each of many channels.
                    few.reserve_exact(1);
                    few.push(present);
                    return true;
                }
            }
        }
        let Clients::Few(few) = std::mem::take(&mut self.clients) else { return false };
        let mut many = Table::default();
        for present in few.into_iter().chain([present]) {
            many.replace(present);
        }
        self.clients = Clients::Many(many);
        true
    }

    pub fn take_out(&mut self, client: &str) -> Option<ClientInfo> {
        match &mut self.clients {
            Clients::Few(few) => {
                let at = few.iter().position(|present| *present.info.client == *client)?;
                Some(few.swap_remove(at).info)
            }
            Clients::Many(many) => many.take(client),
        }
    }

    /// Removes and returns the clients that were last seen longer ago than `age`.
    pub fn expire(&mut self, now: Instant, age: Duration) -> Vec<ClientInfo> {
        if self.oldest.is_none_or(|oldest| now - oldest <= age) {
            return Vec::new();
        }
        let gone = |present: &PresentClient| now - present.seen > age;
        let (left, oldest) = match &mut self.clients {
            Clients::Few(few) => {
                let left = few.extract_if(.., |present| gone(present)).map(|present| present.info).collect();
                (left, few.iter().map(|present| present.seen).min())
            }
            Clients::Many(many) => {
                let left: Vec<ClientInfo> = many.clients.extract_if(gone).map(|present| present.info).collect();
                left.iter().for_each(|info| many.uncount(&info.user));
                (left, many.clients.iter().map(|present| present.seen).min())
            }
        };
        self.oldest = oldest;
        left
    }

    pub fn infos(&self) -> Vec<ClientInfo> {
        let info = |present: &PresentClient| present.info.clone();
        match &self.clients {
            Clients::Few(few) => few.iter().map(info).collect(),
            Clients::Many(many) => many.clients.iter().map(info).collect(),
        }
    }

    /// Number of distinct users, without guests.
    pub fn users(&self) -> usize {
        match &self.clients {
            Clients::Few(few) => {
                let users = few.iter().map(|present| &*present.info.user).filter(|user| !user.is_empty());
                users.collect::<HashSet<_>>().len()
            }
            Clients::Many(many) => many.users.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(client: usize) -> ClientInfo {
        ClientInfo { user: "u".into(), client: client.to_string().into() }
    }

    #[tokio::test(start_paused = true)]
    async fn few_or_many_are_seen_expire_and_go_alike() {
        for size in [1, FEW, FEW + 1, 100] {
            let (mut crowd, age) = (Crowd::default(), Duration::from_secs(10));
            for client in 0..size {
                assert!(crowd.see(info(client), Instant::now()));
            }
            tokio::time::advance(age).await;
            assert!(!crowd.see(info(0), Instant::now()), "renewed");
            assert!(crowd.expire(Instant::now(), age).is_empty());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(crowd.expire(Instant::now(), age).len(), size - 1);
            assert_eq!(crowd.infos(), [info(0)]);
            assert!(crowd.take_out("1").is_none());
            assert!(crowd.see(info(1), Instant::now()));
            assert_eq!(crowd.take_out("1"), Some(info(1)));
            tokio::time::advance(age).await;
            assert_eq!((crowd.expire(Instant::now(), age), crowd.len()), (vec![info(0)], 0), "renewed: expires later");
        }
    }
}
