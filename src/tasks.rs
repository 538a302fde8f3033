//! The process's tasks, and the consequences of a panic in one of them.
//!
//! A [`contained`] task serves one client: a panic ends that client's connection or request, and nothing else. Any other
//! task serves everybody: without it a part of the gateway would stand still while the rest looks healthy. A panic there
//! ends the process with [`EXIT_CODE`], so that its supervisor starts it anew and clients move over. That is the rule for
//! every task that is not marked as contained, so that none can be forgotten.

use std::future::Future;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// The exit code after a panic: EX_SOFTWARE of sysexits.h.
pub const EXIT_CODE: i32 = 70;

/// For tests: the name of a task that panics soon after its start. In the environment of the process.
pub const PANIC_VARIABLE: &str = "KONVERT_PANIC_TASK";
const PANIC_DELAY: Duration = Duration::from_millis(300);

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident = $name:literal,)+) => {
        /// The tasks that run as long as the process does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Task {
            $($(#[$doc])* $task,)+
        }

        impl Task {
            pub const ALL: &[Self] = &[$(Self::$task,)+];

            /// The name in log lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$task => $name,)+
                }
            }
        }
    };
}

tasks! {
    /// Publishes PocketBase's events.
    Relay = "relay",
    /// Writes frames to sockets; one for each thread.
    Writer = "writer",
    PublicListener = "public listener",
    AdminListener = "admin listener",
    PresenceRenewal = "presence renewal",
    PresenceLeavers = "presence leavers",
    StatusReports = "status reports",
    StatusRenewal = "status renewal",
    StatusSilence = "status silence",
    PositionChecks = "position checks",
    /// Asks PocketBase anew, at an interval, who may stay subscribed.
    AccessRechecks = "access rechecks",
    AccessSweep = "access sweep",
    AccountSweep = "account sweep",
    RateSweep = "rate sweep",
    /// Joins questions to PocketBase into calls.
    Batches = "batches",
    /// Only where no Redis is configured.
    MemorySweep = "memory sweep",
    /// Connects, and connects anew, for commands.
    RedisLink = "Redis link",
    /// Reads answers to commands.
    RedisConnection = "Redis connection",
    RedisSubscriptions = "Redis subscriptions",
    /// Reads messages.
    RedisReader = "Redis reader",
    RedisDelivery = "Redis delivery",
    RedisRefresh = "Redis refresh",
    RedisLedger = "Redis ledger",
    /// Only for a cluster or sentinels.
    RedisTopology = "Redis topology",
}

tokio::task_local! {
    static TASK: Option<Task>;
}

/// Starts one of the tasks that serve everybody.
pub fn spawn<F>(task: Task, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    if !is_doomed(task) {
        return tokio::spawn(TASK.scope(Some(task), future));
    }
    tokio::spawn(TASK.scope(Some(task), async {
        match tokio::time::timeout(PANIC_DELAY, future).await {
            Ok(output) => output,
            Err(_) => panic!("asked for by {PANIC_VARIABLE}"),
        }
    }))
}

/// As [`spawn`], for a task that ends with its handle.
pub fn spawn_owned<F>(task: Task, future: F) -> AbortOnDropHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    AbortOnDropHandle::new(spawn(task, future))
}

/// Marks work for a single client.
pub async fn contained<F: Future>(future: F) -> F::Output {
    TASK.scope(None, future).await
}

fn is_doomed(task: Task) -> bool {
    static DOOMED: OnceLock<Option<String>> = OnceLock::new();
    DOOMED.get_or_init(|| std::env::var(PANIC_VARIABLE).ok()).as_deref() == Some(task.name())
}

/// From now on, a panic outside of contained tasks ends the process. Panics are logged.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let task = TASK.try_with(|task| *task);
        if task == Ok(None) {
            log(panic, "a client's task", "its connection is closed; please report this");
        } else {
            let name = task.ok().flatten().map_or("a background task", Task::name);
            log(panic, name, "the gateway ends, to be started anew by its supervisor; please report this");
            std::process::exit(EXIT_CODE);
        }
    }));
}

fn log(panic: &PanicHookInfo<'_>, task: &str, consequence: &str) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(task, message, "panicked at {place}: {consequence}");
}
