//! Tests of events, and of bodies with unreadable parts.

use super::*;
use crate::channel::{CONTROL, NAME_MAX};
use crate::event::Change;

#[test]
fn payloads_stay_as_they_came() {
    let data = r#"{"record":{"content":"\u2028 “quotes” 🦀 \"\\ ","n":1.50}}"#;
    let body = format!(r#"{{"events":[{{"seq":3,"channels":["room:a"],"data":{data}}}],"last":9}}"#);
    let events = Events::parse(body.as_bytes()).unwrap();
    assert_eq!(events.last, 9);
    assert_eq!(events.events[0].data.as_bytes(), data.as_bytes());
}

#[test]
fn why_a_body_is_refused_does_not_repeat_it() {
    for bad in [r#"{"events":"private"}"#, r#"{"events":private}"#] {
        let why = Events::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(why.contains("line 1, column") && !why.contains("private"), "{why}");
    }
}

#[test]
fn bodies_whose_numbers_cannot_be_made_out_are_refused() {
    let event = |seq: u64| format!(r#"{{"seq":{seq},"channels":["a"],"data":1}}"#);
    let body = |events: &[String]| format!(r#"{{"events":[{}]}}"#, events.join(","));
    for bad in [
        String::new(),
        "[]".into(),
        "{}".into(),
        body(&[event(0)]),
        body(&[event(2), event(2)]),
        body(&[event(2), event(1)]),
        body(&[event(i64::MAX as u64 + 1)]),
        body(&[event(1), "{}".into()]),
        body(&[event(1), "7".into()]),
        r#"{"events":[],"last":18446744073709551615}"#.into(),
        r#"{"events":[{"seq":-1,"channels":[],"data":1}]}"#.into(),
        r#"{"events":[{"seq":2,"channels":[],"data":1}],"last":1}"#.into(),
    ] {
        assert!(Events::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Reads an unreadable row between two good rows. Returns the access changes of the resulting event.
fn access_of(row: &str) -> Option<String> {
    let good = |seq| format!(r#"{{"seq":{seq},"channels":["a"],"data":1}}"#);
    let body = format!(r#"{{"events":[{},{{"seq":2,{row}}},{}]}}"#, good(1), good(3));
    let events = Events::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{row}: {error}")).events;
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3], "{row}");
    assert_eq!([&events[0].channels, &events[2].channels], [&["a"], &["a"]]);
    assert_eq!(events[1].completeness, Completeness::Unreadable, "{row}");
    assert!(events[1].channels.is_empty() && events[1].updates.is_none(), "{row}");
    events[1].access.as_ref().map(|access| String::from_utf8(access.as_bytes().to_vec()).unwrap())
}

#[test]
fn a_row_that_cannot_be_read_keeps_its_place() {
    let many = vec!["\"a\""; CHANNELS_MAX + 1].join(",");
    let long = "x".repeat(NAME_MAX + 1);
    for row in [
        r#""channels":["a"]"#.to_owned(),
        r#""data":1"#.into(),
        r#""channels":"a","data":1"#.into(),
        r#""channels":[1],"data":1"#.into(),
        r#""channels":[""],"data":1"#.into(),
        r#""channels":["with space"],"data":1"#.into(),
        r#""channels":["no-break\u00a0space"],"data":1"#.into(),
        r#""channels":["control\u0085"],"data":1"#.into(),
        format!(r#""channels":["{CONTROL}"],"data":1"#),
        format!(r#""channels":["{long}"],"data":1"#),
        format!(r#""channels":[{many}],"data":1"#),
        r#""channels":["a"],"channels":["a"],"data":1"#.into(),
        r#""channels":["a"],"data":1,"updates":7"#.into(),
        r#""channels":["a"],"data":1,"dropped":-1"#.into(),
        r#""channels":["a"],"data":1,"seq":5"#.into(),
    ] {
        assert_eq!(access_of(&row), None, "{row}");
        let changes = r#"[{"cause":"user","user":"u"}]"#;
        assert_eq!(access_of(&format!(r#"{row},"access":{changes}"#)).as_deref(), Some(changes), "{row}");
        for broken in ["7", r#"[{"cause":7}]"#, r#"{"cause":"user"}"#, r#"[],"access":[]"#] {
            let all = access_of(&format!(r#"{row},"access":{broken}"#)).unwrap();
            assert_eq!(serde_json::from_str::<Vec<Change>>(&all).unwrap(), [Change::EVERYTHING], "{row} {broken}");
        }
    }
}

#[test]
fn data_that_is_too_large_is_truncated_to_the_id() {
    let data =
        |content: &str| format!(r#"{{"action":"create","collection":"c","record":{{"big":{content},"id":"a\"b"}}}}"#);
    let read = |data: &str| {
        let body = format!(
            r#"{{"events":[{{"seq":1,"channels":["a"],"data":{data},"updates":{{"channels":[],"users":[]}}}}]}}"#
        );
        Events::parse(body.as_bytes()).unwrap().events.remove(0)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(read(&data(&deep)).completeness, Completeness::Whole);
    for large in [format!("\"{}\"", "x".repeat(DATA_MAX)), format!("{}{}", "[".repeat(DATA_MAX), "]".repeat(DATA_MAX))]
    {
        let event = read(&data(&large));
        assert_eq!(event.completeness, Completeness::Truncated);
        let short = r#"{"action":"create","collection":"c","record":{"id":"a\"b"},"truncated":true}"#;
        assert_eq!(event.data.as_bytes(), short.as_bytes());
        assert!(event.updates.is_some());
        assert_eq!(read(short).completeness, Completeness::Truncated);
    }
    let nothing_to_fetch = read(&format!("\"{}\"", "x".repeat(DATA_MAX)));
    assert_eq!(nothing_to_fetch.completeness, Completeness::Unreadable);
}
