//! Access checks of updates channels by PocketBase, as a trait, so that the model test of a stream can answer.

use crate::pocketbase::{PocketBase, PocketBaseError, View, Views, Visible};
use async_trait::async_trait;

#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// One page of the records visible to a user, or to a class ("~" and the class's name), with ids above `after`.
    /// PocketBase examines `rows` records or a little more, and stops after a limited time.
    async fn visible(&self, channel: &str, who: &str, after: &str, rows: usize) -> Result<Visible, PocketBaseError>;

    /// Checks whether users and classes may view records. Returns answers to the first checks, at least one answer.
    async fn view(&self, channel: &str, checks: &[View]) -> Result<Views, PocketBaseError>;
}

#[async_trait]
impl Source for PocketBase {
    async fn visible(&self, channel: &str, who: &str, after: &str, rows: usize) -> Result<Visible, PocketBaseError> {
        self.visible(channel, who, after, rows).await
    }

    async fn view(&self, channel: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        self.view(channel, checks).await
    }
}
