//! The rpc methods about users' statuses.

use super::{Failure, Session};
use crate::access::Purpose;
use crate::access::change_log::Moment;
use crate::broker::status_store::{Mode, UserStatus};
use crate::channel;
use crate::protocol::codes;
use crate::protocol::{Payload, Reply};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Maximum number of users per call.
const USERS_MAX: usize = 500;

impl Session {
    pub(super) async fn rpc(&self, method: &str, data: Option<Payload>, deadline: Instant) -> Result<Reply, Failure> {
        let data = data.as_ref().map_or(&b"{}"[..], Payload::as_bytes);
        match method {
            // Guests have no status, but may read the status of users, as far as the rules allow.
            "status.set" | "status.idle" if self.connection()?.is_guest() => Err(codes::PERMISSION_DENIED.into()),
            "status.set" => self.set_status(data, deadline).await,
            "status.idle" => self.set_idle(data),
            "status.get" => self.get_statuses(data, deadline).await,
            _ => Err(codes::METHOD_NOT_FOUND.into()),
        }
    }

    async fn set_status(&self, data: &[u8], deadline: Instant) -> Result<Reply, Failure> {
        #[derive(Deserialize)]
        struct Wish {
            #[serde(default)]
            status: Option<Mode>,
        }
        #[derive(Serialize)]
        struct ModeAnswer {
            mode: Mode,
            #[serde(flatten)]
            state: UserStatus,
        }
        let (wish, user): (Wish, _) = (read(data)?, &self.connection()?.user);
        if wish.status.is_some() {
            self.admit_status_change(user)?;
        }
        let chosen = self.services.statuses.choose(user, wish.status);
        let (mode, state) = self.ask_broker("status", deadline, chosen).await?;
        Ok(answer(&ModeAnswer { mode, state }))
    }

    fn set_idle(&self, data: &[u8]) -> Result<Reply, Failure> {
        #[derive(Deserialize)]
        struct Idle {
            idle: bool,
        }
        let Idle { idle } = read(data)?;
        let connection = self.connection()?;
        self.admit_status_change(&connection.user)?;
        self.services.statuses.set_idle(connection, idle);
        Ok(answer(&BTreeMap::<&str, ()>::new()))
    }

    /// Leaves out users whom the caller may not view, and users who do not exist.
    async fn get_statuses(&self, data: &[u8], deadline: Instant) -> Result<Reply, Failure> {
        #[derive(Deserialize)]
        struct StatusesQuery {
            users: Vec<String>,
        }
        #[derive(Serialize)]
        struct StatusesAnswer<'a> {
            statuses: BTreeMap<&'a str, UserStatus>,
        }
        let StatusesQuery { users } = read(data)?;
        if users.len() > USERS_MAX {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        let me = &self.connection()?.user;
        let access = &self.services.access;
        let channels: Vec<Arc<str>> = users.iter().map(|user| channel::status_of(user).into()).collect();
        let verdicts = timeout_at(deadline, access.check_all(self.asker(), me, &channels, Purpose::List)).await;
        let mut allowed: Vec<(String, Moment)> = Vec::new();
        for (user, verdict) in users.into_iter().zip(verdicts.map_err(|_| codes::INTERNAL)?) {
            match verdict {
                Ok(moment) => allowed.push((user, moment)),
                Err(error) if error.temporary => return Err(error.into()),
                Err(_) => {}
            }
        }
        let users: Vec<String> = allowed.iter().map(|(user, _)| user.clone()).collect();
        let read = async {
            let states = self.services.statuses.of(&users).await?;
            self.services.hub.level().await?;
            Ok(states)
        };
        let states = self.ask_broker("status", deadline, read).await?;
        let still = |(user, moment): &(String, Moment)| access.holds(*moment, me, &channel::status_of(user));
        let statuses = allowed.iter().zip(states).filter(|(user, _)| still(user));
        Ok(answer(&StatusesAnswer { statuses: statuses.map(|((user, _), state)| (user.as_str(), state)).collect() }))
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(data).map_err(|_| codes::BAD_REQUEST.into())
}

fn answer(data: &impl Serialize) -> Reply {
    Reply::Rpc(Payload::trusted(serde_json::to_vec(data).unwrap_or_default().into()))
}
