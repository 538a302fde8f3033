//! A user's phone or laptop: one connection, and the true times of its life.

use super::stage::{Stage, now};
use crate::harness::client::Client;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Closed,
    /// The connection's gateway was killed.
    Killed,
    /// The network drops everything without an error.
    Dark,
}

/// Times of one connection, in unix milliseconds.
#[derive(Clone, Debug)]
pub struct Life {
    pub gateway: usize,
    pub asked: u64,
    /// Time of the `connect` reply; `None` if the reply never came.
    pub opened: Option<u64>,
    pub end: Option<(How, u64)>,
}

pub struct Device {
    close: oneshot::Sender<bool>,
    task: JoinHandle<Life>,
}

impl Device {
    /// Connects; returns the life if the attempt fails.
    pub async fn open(stage: &Arc<Stage>, gateway: usize, token: &str) -> Result<Self, Life> {
        let mut life = Life { gateway, asked: now(), opened: None, end: None };
        let url = stage.url(gateway);
        let attempt = timeout(Duration::from_secs(2), async {
            let mut client = Client::try_open(&url).await?;
            client.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
            let reply = client.text().await.ok()?;
            assert!(reply.contains("\"connect\""), "{reply}");
            Some(client)
        });
        let Ok(Some(client)) = attempt.await else {
            life.end = Some((How::Closed, now()));
            return Err(stage.over(life));
        };
        life.opened = Some(now());
        let (close, closing) = oneshot::channel();
        let task = tokio::spawn(live(client, closing, life, Arc::clone(stage)));
        Ok(Self { close, task })
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Closes with a close frame, or without one, as when a process ends.
    pub async fn close(self, politely: bool) -> Life {
        let _ = self.close.send(politely);
        self.task.await.unwrap()
    }

    /// Waits for the life of a device that has ended or still lives.
    pub async fn result(self) -> Life {
        self.task.await.unwrap()
    }
}

async fn live(mut client: Client, mut closing: oneshot::Receiver<bool>, mut life: Life, stage: Arc<Stage>) -> Life {
    loop {
        tokio::select! {
            text = client.text() => if text.is_err() { break },
            politely = &mut closing => {
                // Before the close frame is sent: the gateway counts from the frame's arrival.
                life.end = Some((How::Closed, now()));
                match politely {
                    Ok(true) => client.send_raw(Message::Close(None)).await,
                    Ok(false) => {}
                    // The test is over, and the device still lives.
                    Err(_) => return Life { end: None, ..life },
                }
                break;
            }
        }
    }
    life.end.get_or_insert_with(|| (How::Closed, now()));
    drop(client);
    stage.over(life)
}
