//! Background tasks, and the consequence of a panic.
//!
//! A panic in a [`contained`] task ends the connection or request of a single client. A panic in any other task ends
//! the process with [`EXIT_CODE`]: without the task, a part of the gateway would stand still while `/readyz` reports
//! no error. The supervisor (systemd, Docker) then starts the gateway again, and clients reconnect. Tasks are not
//! contained by default, hence a new task cannot be forgotten.
//!
//! Each part starts its own tasks, by one convention. [`spawn`] returns a guard, and the drop of the guard ends the
//! task. A part that cannot work without a task is made by `start`, holds the guard, and its task holds no strong
//! reference to the part. A part with a task beside its work, such as a sweep, is made by `new`, and a method `start_…`
//! returns the guard to the composition root (`server/gateway.rs`). Work that ends by itself, such as the check after an
//! access change, has no guard and uses `tokio::spawn`.

use futures_util::FutureExt;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The exit code after a panic: EX_SOFTWARE of sysexits.h.
pub const EXIT_CODE: i32 = 70;

/// Environment variable for tests: the name of a task that panics [`PANIC_DELAY`] after the start.
pub const PANIC_VARIABLE: &str = "KONVERT_PANIC_TASK";
const PANIC_DELAY: Duration = Duration::from_millis(300);

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident = $name:literal,)+) => {
        /// Tasks with the lifetime of the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Task {
            $($(#[$doc])* $task,)+
        }

        impl Task {
            pub const ALL: &[Self] = &[$(Self::$task,)+];

            /// Name in log lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$task => $name,)+
                }
            }
        }
    };
}

tasks! {
    /// Publication of PocketBase's events.
    Relay = "relay",
    /// Writes to sockets; a writer per thread.
    Writer = "writer",
    PublicListener = "public listener",
    AdminListener = "admin listener",
    PresenceRenewal = "presence renewal",
    PresenceLeavers = "presence leavers",
    StatusReports = "status reports",
    StatusRenewal = "status renewal",
    StatusSilence = "status silence",
    /// Receives messages of other nodes.
    NodeMailbox = "node mailbox",
    PositionChecks = "position checks",
    /// Checks of all subscriptions, every `recheck_interval`.
    AccessRechecks = "access rechecks",
    AccessSweep = "access sweep",
    AccountSweep = "account sweep",
    RateSweep = "rate sweep",
    /// Batches of questions to PocketBase.
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

/// Starts a task, and returns the guard whose drop ends the task.
#[must_use = "the task ends with the drop of the guard"]
pub fn spawn<F>(task: Task, future: F) -> AbortOnDropHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    if !is_doomed(task) {
        return AbortOnDropHandle::new(tokio::spawn(TASK.scope(Some(task), future)));
    }
    AbortOnDropHandle::new(tokio::spawn(TASK.scope(Some(task), async {
        match tokio::time::timeout(PANIC_DELAY, future).await {
            Ok(output) => output,
            Err(_) => panic!("panic requested by {PANIC_VARIABLE}"),
        }
    })))
}

/// Marks a future as work for a single client. Not an `async fn`, whose future would hold `future` twice, for as long as
/// the connection lives.
pub fn contained<F: Future>(future: F) -> impl Future<Output = F::Output> {
    TASK.scope(None, future)
}

/// Runs a future to its end, also if the caller stops waiting. Starts no task for a future that is ready at once. `None`:
/// the future has panicked, or the runtime is stopping.
pub async fn outliving<F>(future: F) -> Option<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let mut future = Box::pin(future);
    match (&mut future).now_or_never() {
        Some(output) => Some(output),
        None => tokio::spawn(contained(future)).await.ok(),
    }
}

fn is_doomed(task: Task) -> bool {
    static DOOMED: OnceLock<Option<String>> = OnceLock::new();
    DOOMED.get_or_init(|| std::env::var(PANIC_VARIABLE).ok()).as_deref() == Some(task.name())
}

/// Installs the panic hook: panics are logged, and end the process outside of contained tasks.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let task = TASK.try_with(|task| *task);
        if task == Ok(None) {
            log(panic, "a client's task", "the connection is closed; please report this bug");
        } else {
            let name = task.ok().flatten().map_or("a background task", Task::name);
            log(panic, name, "the gateway exits, and its supervisor should restart it; please report this bug");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_outlives_its_caller() {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let caller = outliving(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            done.send(7)
        });
        let stopped = tokio::time::timeout(Duration::from_millis(1), caller).await;
        assert!(stopped.is_err(), "the caller has stopped waiting");
        assert_eq!(is_done.await, Ok(7));
        assert_eq!(outliving(std::future::ready(8)).await, Some(8));
    }

    /// Each open connection is a contained future.
    #[test]
    fn a_contained_future_is_held_once() {
        let future = async {
            let room = [0_u8; 1000];
            std::future::pending::<()>().await;
            std::hint::black_box(&room);
        };
        let own = size_of_val(&future);
        let contained = size_of_val(&contained(future));
        assert!(contained <= own + 32, "{contained} bytes around a future of {own}");
    }
}
