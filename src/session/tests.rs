//! Tests of the session with a gateway's parts in this process: conditions, limits and effects of each command.

mod authentication;
mod membership;
mod subscribing;

use crate::channel;
use crate::event::{Cause, Change};
use crate::hub::subscriber::SubscriptionState;
use crate::pocketbase::{AccountId, UserKey, Verdict};
use crate::protocol::codes::{self, Disconnect};
use crate::stage::{Client, ROOM, Stage, account_id, subscribe, token, until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn change_of(user: &str) -> Change {
    Change { cause: Cause::User, user: Some(user.into()), channel: None, namespace: None }
}

fn refused(sent: Result<Vec<Value>, Disconnect>) -> Disconnect {
    sent.expect_err("the connection ends")
}

impl Stage {
    fn state(&self, client: &Client) -> SubscriptionState {
        self.services.hub.subscription_state(ROOM, client.session.id())
    }

    /// Clients in the room's presence.
    async fn present(&self) -> usize {
        self.services.broker.presence(ROOM).await.unwrap().len()
    }
}
