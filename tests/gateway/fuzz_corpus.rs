//! Replays the fuzzer's corpus through the same properties, without a fuzzer: every parser of external input.
//! `tests/fuzz/run.sh` searches for more inputs.

#[path = "../fuzz/properties"]
pub mod properties {
    pub mod channels;
    pub mod commands;
    pub mod config;
    pub mod events;
    pub mod redis;
    pub mod signature;
    pub mod tokens;
}

use std::path::Path;

/// Checks every file of a target's corpus. A panic names the file.
fn replay(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("{} breaks the property above", path.display());
        }
        count += 1;
    }
    assert!(count >= 5, "{} has only {count} files", directory.display());
}

macro_rules! replays {
    ($($target:ident)+) => { $(
        #[test]
        fn $target() {
            replay(stringify!($target), properties::$target::check);
        }
    )+ };
}

replays! { channels commands config events redis signature tokens }
