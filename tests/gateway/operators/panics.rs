//! A panic in a background task ends the process, with a log line and exit code 70.

use crate::harness::cluster::Cluster;
use crate::harness::pocketbase::PocketBase;
use crate::harness::process::{Process, free_port};
use crate::harness::redis::Redis;
use crate::harness::{SECRET, until};
use konvert_gateway::tasks::{EXIT_CODE, PANIC_VARIABLE, Task};
use std::process::Command;

#[tokio::test]
async fn a_panic_in_a_background_task_ends_the_process() {
    let (pocketbase, redis, cluster) =
        (PocketBase::start("http://127.0.0.1:1").await, Redis::start(), Cluster::start());
    for task in Task::ALL {
        let mut command = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
        command
            .env("GATEWAY_SECRET", SECRET)
            .env("GATEWAY_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("GATEWAY_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("GATEWAY_POCKETBASE_URL", &pocketbase.url)
            .env(PANIC_VARIABLE, task.name());
        match task {
            Task::MemorySweep => {}
            Task::RedisTopology => drop(command.env("GATEWAY_REDIS_URL", cluster.url())),
            _ => drop(command.env("GATEWAY_REDIS_URL", redis.url())),
        }
        let mut gateway = Process::start("gateway", &mut command);
        let code = until(&format!("an end without {task:?}"), async || gateway.ended()).await;
        let log = gateway.log();
        assert_eq!(code, Some(EXIT_CODE), "{task:?}: {log}");
        let line = log.lines().find(|line| line.contains("panicked at")).unwrap_or_default();
        assert!(line.contains(task.name()) && line.contains("the gateway exits"), "{task:?}: {log}");
    }
}
