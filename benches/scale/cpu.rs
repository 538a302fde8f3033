//! CPU time of threads and processes, in nanoseconds by the kernel's scheduler.

use std::fs::{read_dir, read_to_string};
use std::time::Duration;

/// The kernel's number of the current thread.
pub fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// CPU time of a thread of this process.
pub fn of_thread(thread: i32) -> Duration {
    read(&format!("/proc/self/task/{thread}/schedstat"))
}

/// CPU time of the threads of a process. Threads that have ended are missing.
pub fn of_process(pid: u32) -> Duration {
    let threads = read_dir(format!("/proc/{pid}/task")).expect("the process runs").flatten();
    threads.map(|thread| read(&thread.path().join("schedstat").display().to_string())).sum()
}

fn read(path: &str) -> Duration {
    let text = read_to_string(path).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
    Duration::from_nanos(nanoseconds)
}
