//! The wall clock of one gateway, which may jump. libfaketime reads the offset from a file. The monotonic clock is
//! unchanged, as on a machine whose wall clock is set.

use std::path::PathBuf;
use tempfile::NamedTempFile;

pub struct Clock {
    offset: NamedTempFile,
}

impl Clock {
    pub fn new() -> Self {
        let clock = Self { offset: NamedTempFile::new().expect("a temporary file") };
        clock.jump(0);
        clock
    }

    /// Environment variables that make a process follow this clock.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.path().display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// Sets the offset; the process notices within a second.
    pub fn jump(&self, seconds: i64) {
        std::fs::write(self.offset.path(), format!("{seconds:+}")).expect("the file can be written");
    }
}

/// # Panics
/// If libfaketime is not installed.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    found.expect("libfaketime is not under /usr/lib; install the package faketime")
}
