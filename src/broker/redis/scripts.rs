//! What runs inside Redis, so that each step is atomic whichever gateway asks for it.

use redis::{Cmd, Script};

pub struct Scripts {
    pub publish: Script,
    pub history: Script,
    pub forget: Script,
    pub add_presence: Script,
    pub remove_presence: Script,
    pub presence: Script,
    pub advance: Script,
    pub restart: Script,
    pub status_lease: Script,
    pub status_end: Script,
    pub status_choose: Script,
    pub status_get: Script,
    pub status_sweep: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            publish: Script::new(concat!(include_str!("scripts/above.lua"), include_str!("scripts/publish.lua"))),
            history: Script::new(concat!(include_str!("scripts/above.lua"), include_str!("scripts/history.lua"))),
            forget: Script::new(concat!(include_str!("scripts/above.lua"), include_str!("scripts/forget.lua"))),
            add_presence: Script::new(concat!(
                include_str!("scripts/prune.lua"),
                include_str!("scripts/presence_add.lua")
            )),
            remove_presence: Script::new(concat!(
                include_str!("scripts/prune.lua"),
                include_str!("scripts/presence_remove.lua")
            )),
            presence: Script::new(concat!(include_str!("scripts/prune.lua"), include_str!("scripts/presence.lua"))),
            advance: Script::new(concat!(
                include_str!("scripts/above.lua"),
                include_str!("scripts/mark.lua"),
                include_str!("scripts/advance.lua")
            )),
            restart: Script::new(concat!(
                include_str!("scripts/above.lua"),
                include_str!("scripts/mark.lua"),
                include_str!("scripts/restart.lua")
            )),
            status_lease: status(include_str!("scripts/status_lease.lua")),
            status_end: status(include_str!("scripts/status_end.lua")),
            status_choose: status(include_str!("scripts/status_choose.lua")),
            status_get: status(include_str!("scripts/status_get.lua")),
            status_sweep: status(include_str!("scripts/status_sweep.lua")),
        }
    }
}

fn status(script: &str) -> Script {
    Script::new(&[include_str!("scripts/status.lua"), script].concat())
}

/// A call of the script, by its hash. Its arguments are still to be added.
pub fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len()).arg(keys);
    command
}
