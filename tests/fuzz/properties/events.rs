//! Bodies of events, as posted by PocketBase's hooks and answered by the outbox route, and the relay's handling of
//! them.

use konvert_gateway::access::change_log::Changes;
use konvert_gateway::broker::Mark;
use konvert_gateway::channel::{INTERNAL, NAME_MAX};
use konvert_gateway::event::{Change, Completeness, Event, Events};
use konvert_gateway::protocol::Publication;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::relay::machine::{Action, Input, Machine};
use serde_json::json;
use serde_json::value::RawValue;

pub fn check(input: &[u8]) {
    // Several bodies, separated by NUL.
    let bodies: Vec<Events> = input.split(|byte| *byte == 0).filter_map(|body| Events::parse(body).ok()).collect();
    // As answers of the outbox route: a single unreadable row is skipped.
    for body in input.split(|byte| *byte == 0) {
        if let Ok(Some(Events { events, .. })) = Events::page(body, 1) {
            assert!(events.len() <= 1);
        }
    }
    for events in &bodies {
        is_in_order(events);
        comes_back(events);
        changes_access(events);
    }
    is_relayed(&bodies);
}

fn is_in_order(events: &Events) {
    let mut before = 0;
    for event in &events.events {
        assert!(event.seq > before);
        before = event.seq;
        for name in &event.channels {
            assert!((1..=NAME_MAX).contains(&name.len()) && !name.starts_with(INTERNAL), "{name}");
        }
        assert_ne!(event.fingerprint(), 0);
        let data = std::str::from_utf8(event.data.as_bytes()).expect("a payload is UTF-8");
        serde_json::from_str::<&RawValue>(data).expect("a payload is JSON");
        let publication = Publication { offset: event.seq, at: 0, data: event.data.clone(), info: None };
        for channel in event.channels.iter().take(4) {
            let push = encode::push(Format::WebSocketJson, channel, &Push::Publication(&publication));
            assert!(!push.text().iter().any(|byte| matches!(byte, b'\n' | b'\r')), "a frame is one line");
            serde_json::from_slice::<&RawValue>(push.text()).expect("a frame is JSON");
        }
    }
}

/// An event's access changes invalidate cached verdicts about the affected users and channels.
fn changes_access(events: &Events) {
    let changes = Changes::default();
    for payload in events.events.iter().filter_map(|event| event.access.as_ref()) {
        let said: Vec<Change> = serde_json::from_slice(payload.as_bytes()).unwrap_or_default();
        for change in said {
            let then = changes.now();
            changes.note(&change);
            let user = change.user.as_deref().unwrap_or("anybody");
            let channel = change.channel.as_deref().unwrap_or("room:a");
            assert!(!changes.none_since(then, user, Some(channel)), "{change:?}");
            assert!(changes.none_since(changes.now(), user, Some(channel)));
        }
    }
}

/// The events written again are the same.
fn comes_back(events: &Events) {
    let each = events.events.iter().map(|event| {
        let data = String::from_utf8_lossy(event.data.as_bytes());
        let access = event.access.as_ref().map(|access| String::from_utf8_lossy(access.as_bytes()));
        let access = access.map(|access| format!(r#","access":{access}"#)).unwrap_or_default();
        format!(r#"{{"seq":{},"channels":{},"data":{data}{access}}}"#, event.seq, json!(event.channels))
    });
    let body = format!(r#"{{"events":[{}],"last":{}}}"#, each.collect::<Vec<_>>().join(","), events.last);
    let again = Events::parse(body.as_bytes()).expect("what was read can be read again");
    // Without the unwritten parts and the marks of an unreadable row.
    let written =
        |event: &Event| Event { updates: None, dropped: 0, completeness: Completeness::Whole, ..event.clone() };
    let all = |events: &Events| events.events.iter().map(written).collect::<Vec<_>>();
    assert_eq!((all(&again), again.last), (all(events), events.last));
}

/// The relay takes the events in turn as posts and as pages of the outbox. The relay comes to an end, and publishes
/// only continuations of its mark, whatever the outbox says.
fn is_relayed(bodies: &[Events]) {
    let mut machine = Machine::default();
    let mut shared: Option<Mark> = None;
    let mut pages = bodies.iter().cycle();
    for body in bodies {
        for input in [Input::Tick, Input::Posted(body.clone())] {
            let mut next = machine.step(input);
            let mut steps = 0;
            while let Some(action) = next {
                steps += 1;
                let outcome = match action {
                    // Pages may repeat forever, as with a broken outbox.
                    _ if steps > 64 => Input::Failed,
                    Action::Begin(mark) => Input::Mark(*shared.get_or_insert(mark)),
                    Action::Advance(mark) | Action::Restart(mark) => Input::Mark(*shared.insert(mark)),
                    Action::Read { after, .. } => {
                        assert!(after <= i64::MAX as u64, "it reads behind {after}");
                        pages.next().cloned().map_or(Input::Failed, Input::Page)
                    }
                    Action::Publish { run, .. } => {
                        let at = machine.mark().expect("it publishes only behind a mark");
                        assert!(run.iter().zip(1..).all(|(event, step)| Some(event.seq) == at.seq.checked_add(step)));
                        if run.len() % 5 == 4 { Input::Conflict } else { Input::Published }
                    }
                    Action::Confirm(_) => Input::Confirmed { more: false },
                };
                next = machine.step(outcome);
            }
            machine.notes();
            assert!(machine.is_idle());
        }
    }
}
