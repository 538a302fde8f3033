//! Reading all that a user or a class may view, beside the stream: each in a task of its own, page by page.

use super::inquiry::{Inquiry, Whole};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Whose sight is read.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) enum Who {
    User(Arc<str>),
    Class(Arc<str>),
}

impl Who {
    /// The name in PocketBase's routes.
    pub fn name(&self) -> Arc<str> {
        match self {
            Who::User(user) => Arc::clone(user),
            Who::Class(class) => format!("~{class}").into(),
        }
    }
}

pub(super) struct Load {
    /// The batch with which it began: its answers are at least as new as all inputs up to there.
    pub since: u64,
    /// The first later batch that put the whole of it in doubt: it holds for what was before, and then has to be
    /// repeated.
    pub again: Option<u64>,
    /// Part of the regular recheck, for which nothing is held back.
    pub recheck: bool,
    /// Read to the end. `None` inside: given up.
    pub result: Option<Option<Whole>>,
    number: u64,
    _task: AbortOnDropHandle<()>,
}

impl Load {
    /// The first batch for which it does not hold, if it is settled with batch `now`.
    pub fn end(&self, now: u64) -> u64 {
        self.again.unwrap_or(now + 1)
    }
}

type Done = (Who, u64, Option<Whole>);

pub(super) struct Loads {
    of: HashMap<Who, Load>,
    inquiry: Arc<Inquiry>,
    last: u64,
    // At most one message for each load.
    done: mpsc::UnboundedReceiver<Done>,
    finish: mpsc::UnboundedSender<Done>,
}

impl Loads {
    pub fn new(inquiry: Arc<Inquiry>) -> Self {
        let (finish, done) = mpsc::unbounded_channel();
        Self { of: HashMap::new(), inquiry, last: 0, done, finish }
    }

    pub fn get(&self, who: &Who) -> Option<&Load> {
        self.of.get(who)
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Begins to read, in place of what is under way for the same user or class.
    pub fn begin(&mut self, who: Who, batch: u64, recheck: bool) {
        self.last += 1;
        let (number, inquiry, finish, asked) = (self.last, Arc::clone(&self.inquiry), self.finish.clone(), who.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let whole = inquiry.whole(&asked.name(), recheck).await;
            // It fails at the end of the stream only.
            let _ = finish.send((asked, number, whole));
        }));
        self.of.insert(who, Load { since: batch, again: None, recheck, result: None, number, _task: task });
    }

    /// Everything about this user or class is in doubt with this batch.
    pub fn doubt(&mut self, who: Who, batch: u64) {
        match self.of.get_mut(&who) {
            Some(load) if load.recheck => self.begin(who, batch, false),
            Some(load) if load.since < batch => {
                load.again.get_or_insert(batch);
            }
            Some(_) => {}
            None => self.begin(who, batch, false),
        }
    }

    pub fn remove(&mut self, who: &Who) -> Option<Load> {
        self.of.remove(who)
    }

    pub fn clear(&mut self) {
        self.of.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Who, &Load)> {
        self.of.iter()
    }

    /// Returns when a load has come to its end. Cancelling it loses nothing.
    pub async fn done(&mut self) {
        // There is always a sender: this one's own.
        if let Some(done) = self.done.recv().await {
            self.take(done);
        }
    }

    /// Takes in what has come to its end by now.
    pub fn collect(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.take(done);
        }
    }

    fn take(&mut self, (who, number, whole): Done) {
        if let Some(load) = self.of.get_mut(&who)
            && load.number == number
        {
            load.result = Some(whole);
        }
    }
}
