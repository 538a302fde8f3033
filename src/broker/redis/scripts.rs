//! The Lua scripts, which run inside Redis: each call is atomic, whichever gateway makes the call.

use redis::{Cmd, Script};

pub struct Scripts {
    /// `PUBLISH`, or `SPUBLISH` in a cluster.
    pub publish_command: &'static str,
    pub publish: Script,
    pub history: Script,
    pub trim: Script,
    pub ledger: Script,
    pub forget: Script,
    pub add_presence: Script,
    pub remove_presence: Script,
    pub presence: Script,
    pub presence_stats: Script,
    pub advance: Script,
    pub restart: Script,
    pub status_lease: Script,
    pub status_connections: Script,
    pub status_end: Script,
    pub status_choose: Script,
    pub status_get: Script,
    pub status_sweep: Script,
}

impl Scripts {
    /// In a cluster, scripts publish into sharded channels, which stay on the node of their slot.
    pub fn new(clustered: bool) -> Self {
        let publish_command = if clustered { "SPUBLISH" } else { "PUBLISH" };
        let script = |parts: &[&str]| Script::new(&format!("local PUBLISH = '{publish_command}'\n{}", parts.concat()));
        let above = include_str!("scripts/above.lua");
        let shrink = include_str!("scripts/shrink.lua");
        let prune = include_str!("scripts/prune.lua");
        let mark = include_str!("scripts/mark.lua");
        let status = include_str!("scripts/status.lua");
        Self {
            publish_command,
            publish: script(&[above, shrink, mark, include_str!("scripts/publish.lua")]),
            history: script(&[above, include_str!("scripts/history.lua")]),
            trim: script(&[shrink, include_str!("scripts/trim.lua")]),
            ledger: script(&[include_str!("scripts/ledger.lua")]),
            forget: script(&[above, include_str!("scripts/forget.lua")]),
            add_presence: script(&[prune, include_str!("scripts/presence_add.lua")]),
            remove_presence: script(&[prune, include_str!("scripts/presence_remove.lua")]),
            presence: script(&[prune, include_str!("scripts/presence.lua")]),
            presence_stats: script(&[prune, include_str!("scripts/presence_stats.lua")]),
            advance: script(&[above, mark, include_str!("scripts/advance.lua")]),
            restart: script(&[above, mark, include_str!("scripts/restart.lua")]),
            status_lease: script(&[status, include_str!("scripts/status_lease.lua")]),
            status_connections: script(&[status, include_str!("scripts/status_connections.lua")]),
            status_end: script(&[status, include_str!("scripts/status_end.lua")]),
            status_choose: script(&[status, include_str!("scripts/status_choose.lua")]),
            status_get: script(&[status, include_str!("scripts/status_get.lua")]),
            status_sweep: script(&[status, include_str!("scripts/status_sweep.lua")]),
        }
    }
}

/// A call of a script by hash, with the keys. The caller adds the arguments.
pub fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len()).arg(keys);
    command
}
