//! File descriptors: the system's limit for this process, and the shares of the public listener.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors reserved for uses without a limit of their own: files being read, DNS lookups, sockets being closed.
const SPARE: usize = 16;
/// The limit assumed where the system sets none.
const PLENTY: usize = 1 << 20;

/// Raises the soft limit to the hard limit, since each client takes a descriptor. The usual soft limit of 1024 exists
/// for programs that use select(2); the gateway does not. Returns the limit in effect.
pub fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "could not raise the limit of file descriptors; the gateway uses the current limit");
    }
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PLENTY)
}

/// Number of descriptors that the process has open.
pub fn open() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"));
    // The directory itself is counted too, hence minus 1. Without either directory: 32, the number open after a start
    // on a single thread.
    entries.map_or(32, |entries| entries.count().saturating_sub(1))
}

/// Descriptors reserved for everything but sockets of the public listener, once all links are up. `open`: descriptors
/// open already, mostly links to Redis; counted twice, since a link may be opened again before the old one is closed.
/// `bounded`: descriptors that may be opened later, limited by their users.
pub fn own(open: usize, bounded: usize) -> usize {
    2 * open + bounded + SPARE
}

/// Sockets that the public listener may hold, by kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Connections of clients.
    pub connections: usize,
    /// Sockets before the WebSocket handshake.
    pub pending: usize,
}

/// The number of descriptors does not suffice for the settings.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "`max_connections` = {connections} needs {needed} file descriptors, and this process may have {descriptors}: raise `ulimit -n` (LimitNOFILE in systemd), or lower the setting"
)]
pub struct TooFew {
    connections: usize,
    needed: usize,
    descriptors: usize,
}

/// Divides the descriptors, of which `own` are reserved. `connections` unset: nine tenths of the descriptors, or fewer
/// if fewer remain. `pending` gets its setting, but at most a tenth of the descriptors.
pub fn share(descriptors: usize, own: usize, connections: Option<usize>, pending: usize) -> Result<Shares, TooFew> {
    let pending = pending.min(descriptors / 10).max(1);
    let connections =
        connections.unwrap_or_else(|| (descriptors / 10 * 9).min(descriptors.saturating_sub(pending + own)).max(1));
    let needed = connections.saturating_add(pending + own);
    if needed > descriptors {
        return Err(TooFew { connections, needed, descriptors });
    }
    Ok(Shares { connections, pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_clients_is_kept() {
        let shares = |connections, pending| Ok(Shares { connections, pending });
        let share = |descriptors, connections, pending| share(descriptors, 100, connections, pending);
        assert_eq!(share(1024, None, 1000), shares(822, 102));
        assert_eq!(share(20_000, None, 1000), shares(18_000, 1000));
        assert_eq!(share(1 << 20, None, 1000), shares(943_713, 1000));
        assert_eq!(share(1024, Some(500), 20), shares(500, 20));
    }

    #[test]
    fn a_setting_that_cannot_hold_is_an_error_that_says_so() {
        let error = share(1024, 100, Some(1000), 1000).unwrap_err().to_string();
        assert!(
            error.contains("`max_connections` = 1000") && error.contains("1202") && error.contains("1024"),
            "{error}"
        );
        assert!(share(1024, 100, Some(usize::MAX), 1).is_err());
        assert!(share(64, 100, None, 1).is_err());
    }

    #[test]
    fn open_descriptors_are_counted() {
        let before = open();
        let held: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close descriptors meanwhile.
        assert!(before > 2 && open() + 10 > before, "{before}, {}", open());
        drop(held);
        assert_eq!(own(20, 80), 40 + 80 + SPARE);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.current.map_or(PLENTY, |limit| limit as usize));
    }
}
