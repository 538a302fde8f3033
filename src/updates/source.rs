//! The questions that updates channels ask PocketBase, as a seam: the model test of a stream answers them itself.

use crate::pocketbase::{PocketBase, PocketBaseError, View, Views, Visible};
use async_trait::async_trait;

#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// One page of the records that a user, or a class ("~" and its name), may view: those with an id above `after`.
    /// PocketBase looks at `rows` records or a little more, and stops after a bounded time.
    async fn visible(&self, channel: &str, who: &str, after: &str, rows: usize) -> Result<Visible, PocketBaseError>;

    /// Which of these users and classes may view which records: answers to the first checks, at least one.
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
