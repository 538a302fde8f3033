//! Frames of commands from a client. Commands are read up to the first error, and each answer or forwarded message is
//! one line of JSON.

use konvert_gateway::protocol::json::{decode, publication_push, reply, unsubscribe_push};
use konvert_gateway::protocol::{
    ClientInfo, Command, HistoryRequest, Payload, Position, Publication, Reply, Request, Subscribe, SubscribeReply,
    codes,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub fn check(input: &[u8]) {
    let Ok(frame) = std::str::from_utf8(input) else { return };
    let commands: Vec<_> = decode(frame).collect();
    // The shortest command is a pong, `{}`. The last command may be malformed.
    assert!(commands.len() <= frame.len() / 2 + 1);
    let errors = commands.iter().filter(|command| command.is_err()).count();
    assert!(errors == 0 || errors == 1 && commands.last().is_some_and(Result::is_err), "goes on behind an error");
    for Command { id, request } in commands.into_iter().flatten() {
        assert!(id != 0 || matches!(request, Request::Send | Request::Pong), "no id: {request:?}");
        comes_back(id, &request);
        if let Request::Publish { channel, data } = &request {
            can_be_passed_on(channel, data);
        }
        if let Request::Subscribe(Subscribe { channel, recover, .. }) = &request {
            can_be_answered(id, channel, recover.as_ref());
        }
    }
}

/// The command written again in plain JSON means the same.
fn comes_back(id: u32, request: &Request) {
    let body = match request {
        Request::Connect { token } | Request::Refresh { token } => json!({"token": token}),
        Request::Subscribe(Subscribe { channel, recover, reject_unrecovered, join_leave, echo }) => {
            let flag = if *reject_unrecovered { 2 } else { 0 };
            let mut body = json!({"channel": channel, "flag": flag, "join_leave": join_leave, "data": {"echo": echo}});
            if let Some(Position { offset, epoch }) = recover {
                (body["recover"], body["offset"], body["epoch"]) = (json!(true), json!(offset), json!(epoch));
            }
            body
        }
        Request::Unsubscribe { channel }
        | Request::Presence { channel }
        | Request::PresenceStats { channel }
        | Request::SubRefresh { channel } => json!({"channel": channel}),
        // The data may be JSON that serde_json rejects as a value: escapes of half a character, huge numbers.
        Request::Publish { channel, data } => {
            let channel = json!(channel);
            let again = format!(r#"{{"id":{id},"publish":{{"channel":{channel},"data":{data}}}}}"#);
            return same(id, request, &again);
        }
        Request::History(HistoryRequest { channel, limit, since, reverse }) => {
            let mut body = json!({"channel": channel, "limit": limit, "reverse": reverse});
            if let Some(Position { offset, epoch }) = since {
                body["since"] = json!({"offset": offset, "epoch": epoch});
            }
            body
        }
        Request::Rpc { method, data: None } => json!({"method": method}),
        Request::Rpc { method, data: Some(data) } => {
            let method = json!(method);
            return same(id, request, &format!(r#"{{"id":{id},"rpc":{{"method":{method},"data":{data}}}}}"#));
        }
        Request::Send | Request::Ping => json!({}),
        Request::Pong => return same(id, request, "{}"),
        // A refused command is answered with the error; its content is neither kept nor passed on.
        Request::Refused { error, .. } => {
            assert!([codes::BAD_REQUEST, codes::NOT_AVAILABLE].contains(error), "{request:?}");
            return;
        }
    };
    same(id, request, &json!({"id": id, request.name(): body}).to_string());
}

fn same(id: u32, request: &Request, again: &str) {
    let in_words = |id: u32, request: &Request| format!("{id} {request:?}");
    let read = decode(again).map(|command| command.map(|Command { id, request }| in_words(id, &request)));
    let read: Vec<Option<String>> = read.map(Result::ok).collect();
    assert_eq!(read, [Some(in_words(id, request))], "{again}");
}

fn can_be_passed_on(channel: &str, data: &RawValue) {
    let payload = Payload::from_raw(data);
    assert_eq!(payload.len(), data.get().len(), "byte for byte, but for line breaks");
    let info = Some(ClientInfo { user: "u".into(), client: channel.into() });
    let push = publication_push(channel, &Publication { offset: 0, at: 0, data: payload, info });
    is_one_line_of_json(push.text());
    assert!(push.len() <= data.get().len() + 2 * (6 * channel.len()) + 128, "{} bytes", push.len());
}

fn can_be_answered(id: u32, channel: &str, recover: Option<&Position>) {
    is_one_line_of_json(unsubscribe_push(channel, codes::INSUFFICIENT_STATE).text());
    let Some(position) = recover.cloned() else { return };
    let answer = Reply::Subscribe(SubscribeReply { position, recovered: Some(false), publications: Vec::new() });
    let frame = reply(id, &answer);
    is_one_line_of_json(frame.text());
    let value: Value = serde_json::from_slice(frame.text()).expect("it is JSON");
    assert_eq!(value["id"], id);
}

fn is_one_line_of_json(frame: &[u8]) {
    let text = std::str::from_utf8(frame).expect("a frame is UTF-8");
    assert!(!text.contains(['\n', '\r']), "a frame is one line: {text}");
    serde_json::from_str::<&RawValue>(text).expect("a frame is JSON");
}
