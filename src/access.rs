//! May this user use this channel: PocketBase's own rules decide, through the hooks' `authorize` route.

use crate::event::CHANNEL_NAME_MAX;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{Check, PocketBase, PocketBaseError, Verdict};
use crate::protocol::codes::{self, ErrorCode};
use std::sync::Arc;

pub struct Access {
    questions: Batcher<Check, Verdict>,
}

impl Access {
    pub fn new(pocketbase: PocketBase) -> Self {
        let questions = Batcher::start(move |checks: Arc<[Check]>| {
            let pocketbase = pocketbase.clone();
            async move { pocketbase.authorize(&checks).await }
        });
        Self { questions }
    }

    /// Whether the user may subscribe; the error is what the client is told.
    pub async fn check(&self, user: &str, channel: &str) -> Result<(), ErrorCode> {
        if !is_well_formed(channel) {
            return Err(codes::UNKNOWN_CHANNEL);
        }
        let check = Check { user: user.to_owned(), channel: channel.to_owned() };
        match self.questions.ask(check).await {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(Verdict::Denied) => Err(codes::PERMISSION_DENIED),
            Ok(Verdict::Unknown) => Err(codes::UNKNOWN_CHANNEL),
            Err(error) => {
                log(&error);
                Err(codes::INTERNAL)
            }
        }
    }
}

fn log(error: &PocketBaseError) {
    tracing::warn!(%error, "asking PocketBase for access failed; the client is told to try again");
}

/// Channel names are visible ASCII: what PocketBase's record ids consist of, and what looks the same everywhere.
pub fn is_well_formed(channel: &str) -> bool {
    !channel.is_empty() && channel.len() <= CHANNEL_NAME_MAX && channel.bytes().all(|byte| byte.is_ascii_graphic())
}
