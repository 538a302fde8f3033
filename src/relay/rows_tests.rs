//! Tests with arbitrary rows between good rows in the outbox: the good rows are published in order and exactly once,
//! and access is checked again for rows whose access changes are unreadable.

use super::driver::entries;
use super::machine::{Action, Input, Machine, Note};
use crate::broker::{Entry, Mark};
use crate::channel::CONTROL;
use crate::event::Change;
use crate::event::Events;
use proptest::prelude::*;

const ROOM: &str = "room:a";

/// The texts of the outbox's rows, from number 1 on.
type Outbox = Vec<Vec<u8>>;

fn good(name: usize) -> Vec<u8> {
    format!(r#"{{"channels":["{ROOM}"],"data":"good {name}","access":[{{"cause":"user","user":"u{name}"}}]}}"#)
        .into_bytes()
}

/// Joins rows as the hooks' SQL does: each row follows its number, without the first character.
fn rows(outbox: &Outbox, after: u64, limit: usize) -> (Vec<u8>, u64) {
    let mut joined = Vec::new();
    let mut last = 0;
    for (seq, row) in (1..).zip(outbox).filter(|(seq, _)| *seq > after).take(limit) {
        joined.extend_from_slice(if joined.is_empty() { b"" } else { b"," });
        joined.extend_from_slice(format!("{{\"seq\":{seq},").as_bytes());
        joined.extend_from_slice(row.get(1..).unwrap_or_default());
        last = seq;
    }
    (joined, last)
}

fn body(rows: &[u8], last: u64) -> Vec<u8> {
    [br#"{"boot":"b","events":["#, rows, format!(r#"],"last":{last},"problems":[]}}"#).as_bytes()].concat()
}

fn read(outbox: &Outbox, after: u64, mut limit: u16) -> Events {
    loop {
        let (rows, _) = rows(outbox, after, limit.into());
        match Events::page(&body(&rows, outbox.len() as u64), limit) {
            Ok(Some(events)) => return events,
            Ok(None) => limit /= 2,
            Err(error) => panic!("one row holds up the outbox: {error}\n{}", String::from_utf8_lossy(&rows)),
        }
    }
}

/// Relays all rows. Returns the data published in [`ROOM`] and the access notices.
fn relay(outbox: &Outbox, posts: &[(usize, usize)]) -> (Vec<String>, Vec<String>) {
    let mut machine = Machine::default();
    let mut mark: Option<Mark> = None;
    let mut published: Vec<Entry> = Vec::new();
    // Following begins with an empty outbox; the rows are written afterwards.
    let mut inputs: Vec<Input> = vec![Input::Tick];
    for &(from, count) in posts {
        let (rows, last) = rows(outbox, (from % outbox.len()) as u64, count);
        inputs.extend(Events::parse(&body(&rows, last)).ok().map(Input::Posted));
    }
    // The second tick compares the row at the mark.
    inputs.extend([Input::Tick, Input::Tick]);
    let mut begun = false;
    for input in inputs {
        let mut next = machine.step(input);
        let mut steps = 0;
        while let Some(action) = next {
            steps += 1;
            assert!(steps < 10_000, "the machine does not come to rest");
            let outcome = match action {
                Action::Begin(new) => Input::Mark(*mark.get_or_insert(new)),
                Action::Advance(new) | Action::Restart(new) => Input::Mark(*mark.insert(new)),
                Action::Read { .. } if !begun => Input::Page(read(&Vec::new(), 0, 1)),
                Action::Read { after, limit } => Input::Page(read(outbox, after, limit)),
                Action::Publish { run, .. } => {
                    published.extend(entries(run));
                    Input::Published
                }
                Action::Confirm(_) => Input::Confirmed { more: false },
            };
            next = machine.step(outcome);
        }
        assert!(!machine.notes().contains(&Note::Diverged), "taken for a restore from a backup");
        begun = true;
    }
    assert_eq!(machine.mark().map(|mark| mark.seq), Some(outbox.len() as u64), "the mark is behind the outbox");
    let of = |channel: &str| {
        let data = published.iter().filter(|entry| entry.channel == channel).map(|entry| entry.data.as_bytes());
        data.map(|data| String::from_utf8_lossy(data).into_owned()).collect()
    };
    (of(ROOM), of(CONTROL))
}

/// Fragments of rows and bodies, and other bytes.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\"",
    b"\\",
    b"\n",
    b"\xff",
    b"null",
    b"-1",
    b"\"seq\":",
    b"{\"seq\":2,",
    b"{\"seq\":3,\"channels\":[],\"data\":1}",
    b"},{\"seq\":4,\"channels\":[],\"data\":1",
    b"{\"channels\":",
    b"\"channels\":[\"other\"]",
    b"\"channels\":[\"$access\"]",
    b"\"data\":{}",
    b"\"access\":[{\"cause\":\"user\"}]",
    b"\"access\":7",
    b"\"updates\":[]",
    b"\"events\":[",
    b"],\"last\":1}",
    b"],\"last\":99}",
];

fn odd() -> impl Strategy<Value = Vec<u8>> {
    let pieces = proptest::collection::vec(0..PIECES.len(), 0..8);
    let pieces = pieces.prop_map(|pieces| pieces.into_iter().flat_map(|piece| PIECES[piece].to_vec()).collect());
    let cut = (0..good(0).len()).prop_map(|length| good(0)[..length].to_vec());
    let many = Just(format!(r#"{{"channels":[{}"other"],"data":1}}"#, "\"other\",".repeat(1000)).into_bytes());
    prop_oneof![4 => pieces, 2 => proptest::collection::vec(any::<u8>(), 0..40), 2 => cut, 1 => many]
}

proptest! {
    #[test]
    fn good_rows_arrive_whatever_stands_between_them(
        outbox in proptest::collection::vec(prop_oneof![Just(None), odd().prop_map(Some)], 1..24),
        posts in proptest::collection::vec((0_usize..24, 1_usize..24), 0..4),
    ) {
        let due: Vec<String> = (0..outbox.len()).filter(|i| outbox[*i].is_none()).map(|i| format!("\"good {i}\"")).collect();
        let users: Vec<String> = (0..outbox.len()).filter(|i| outbox[*i].is_none()).map(|i| format!("\"u{i}\"")).collect();
        let outbox: Outbox = outbox.into_iter().enumerate().map(|(i, row)| row.unwrap_or_else(|| good(i))).collect();
        let (arrived, access) = relay(&outbox, &posts);
        prop_assert_eq!(arrived, due);
        let revoked: Vec<String> = users.into_iter().filter(|user| access.iter().any(|it| it.contains(user))).collect();
        prop_assert_eq!(revoked.len(), access.iter().filter(|it| it.contains("\"user\":\"u")).count());
        for notice in &access {
            let notice: serde_json::Value = serde_json::from_str(notice).unwrap();
            let changes: Result<Vec<Change>, _> = serde_json::from_value(notice["access"].clone());
            prop_assert!(changes.is_ok(), "every notice is readable: {}", notice);
        }
    }

    #[test]
    fn a_row_cut_off_anywhere_has_all_access_checked_anew(length in 1..good(0).len()) {
        let (arrived, access) = relay(&vec![good(0), good(1)[..length].to_vec(), good(2)], &[]);
        prop_assert_eq!(arrived, ["\"good 0\"", "\"good 2\""]);
        prop_assert_eq!(&access[1], r#"{"access":[{"cause":"rules"}]}"#);
        prop_assert_eq!(access.len(), 3);
    }
}
