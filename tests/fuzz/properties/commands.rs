//! Frames of commands from a client. Commands are read up to the first error, and each answer or forwarded message is
//! one line of JSON.

use konvert_gateway::protocol::decode::ClientFrame;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::messages::{self, StreamPosition};
use konvert_gateway::protocol::{
    ClientInfo, Command, HistoryRequest, Payload, Position, Publication, Reply, Request, Subscribe, SubscribeReply,
    codes,
};
use prost::Message;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The input as a frame in each encoding.
pub fn check(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        // The shortest command is a pong, `{}`.
        check_frame(&ClientFrame::Json(text.into()), 2);
    }
    check_frame(&ClientFrame::Protobuf(input.to_vec().into()), 1);
}

fn check_frame(frame: &ClientFrame, shortest: usize) {
    let commands: Vec<_> = frame.commands().collect();
    // The last command may be malformed.
    assert!(commands.len() <= frame.len() / shortest + 1);
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

/// The command written again, in each encoding, means the same.
pub fn comes_back(id: u32, request: &Request) {
    // A refused command is answered with the error; its content is neither kept nor passed on.
    if let Request::Refused { error, .. } = request {
        assert!([codes::BAD_REQUEST, codes::NOT_AVAILABLE].contains(error), "{request:?}");
        return;
    }
    let json = ClientFrame::Json(in_json(id, request).into());
    let protobuf = ClientFrame::Protobuf(in_protobuf(id, request).encode_length_delimited_to_vec().into());
    let in_words = |id: u32, request: &Request| format!("{id} {request:?}");
    for again in [json, protobuf] {
        let read = again.commands().map(|command| command.map(|Command { id, request }| in_words(id, &request)));
        let read: Vec<Option<String>> = read.map(Result::ok).collect();
        assert_eq!(read, [Some(in_words(id, request))], "{again:?}");
    }
}

fn in_json(id: u32, request: &Request) -> String {
    let body = match request {
        Request::Connect { token } | Request::Refresh { token } => json!({"token": token}).to_string(),
        Request::Subscribe(Subscribe { channel, recover, reject_unrecovered, join_leave, echo }) => {
            let flag = if *reject_unrecovered { 2 } else { 0 };
            let mut body = json!({"channel": channel, "flag": flag, "join_leave": join_leave, "data": {"echo": echo}});
            if let Some(Position { offset, epoch }) = recover {
                (body["recover"], body["offset"], body["epoch"]) = (json!(true), json!(offset), json!(epoch));
            }
            body.to_string()
        }
        Request::Unsubscribe { channel }
        | Request::Presence { channel }
        | Request::PresenceStats { channel }
        | Request::SubRefresh { channel } => json!({"channel": channel}).to_string(),
        // The data may be JSON that serde_json rejects as a value: escapes of half a character, huge numbers.
        Request::Publish { channel, data } => {
            format!(r#"{{"channel":{},"data":{}}}"#, json!(channel), text(data))
        }
        Request::History(HistoryRequest { channel, limit, since, reverse }) => {
            let mut body = json!({"channel": channel, "limit": limit, "reverse": reverse});
            if let Some(Position { offset, epoch }) = since {
                body["since"] = json!({"offset": offset, "epoch": epoch});
            }
            body.to_string()
        }
        Request::Rpc { method, data: None } => json!({"method": method}).to_string(),
        Request::Rpc { method, data: Some(data) } => format!(r#"{{"method":{},"data":{}}}"#, json!(method), text(data)),
        Request::Send | Request::Ping => "{}".to_owned(),
        Request::Pong => return "{}".to_owned(),
        Request::Refused { .. } => unreachable!("left out above"),
    };
    format!(r#"{{"id":{id},"{}":{body}}}"#, request.name())
}

fn in_protobuf(id: u32, request: &Request) -> messages::Command {
    let empty = messages::Command { id, ..Default::default() };
    let data = |payload: &Payload| payload.as_bytes().to_vec().into();
    match request {
        Request::Connect { token } => {
            messages::Command { connect: Some(messages::ConnectRequest { token: token.clone() }), ..empty }
        }
        Request::Refresh { token } => {
            messages::Command { refresh: Some(messages::RefreshRequest { token: token.clone() }), ..empty }
        }
        Request::Subscribe(Subscribe { channel, recover, reject_unrecovered, join_leave, echo }) => {
            let subscribe = messages::SubscribeRequest {
                channel: channel.clone(),
                recover: recover.is_some(),
                epoch: recover.as_ref().map(|it| it.epoch.clone()).unwrap_or_default(),
                offset: recover.as_ref().map(|it| it.offset).unwrap_or_default(),
                flag: if *reject_unrecovered { 2 } else { 0 },
                join_leave: *join_leave,
                data: json!({"echo": echo}).to_string().into(),
                ..Default::default()
            };
            messages::Command { subscribe: Some(subscribe), ..empty }
        }
        Request::Unsubscribe { channel } => {
            messages::Command { unsubscribe: Some(messages::UnsubscribeRequest { channel: channel.clone() }), ..empty }
        }
        Request::Presence { channel } => {
            messages::Command { presence: Some(messages::PresenceRequest { channel: channel.clone() }), ..empty }
        }
        Request::PresenceStats { channel } => {
            let presence_stats = Some(messages::PresenceStatsRequest { channel: channel.clone() });
            messages::Command { presence_stats, ..empty }
        }
        Request::SubRefresh { channel } => {
            let sub_refresh = Some(messages::SubRefreshRequest { channel: channel.clone(), ..Default::default() });
            messages::Command { sub_refresh, ..empty }
        }
        Request::Publish { channel, data: payload } => {
            let publish = messages::PublishRequest { channel: channel.clone(), data: data(payload), r#type: 0 };
            messages::Command { publish: Some(publish), ..empty }
        }
        Request::History(HistoryRequest { channel, limit, since, reverse }) => {
            let since = since.as_ref().map(|it| StreamPosition { offset: it.offset, epoch: it.epoch.clone() });
            let (channel, limit, reverse) = (channel.clone(), *limit, *reverse);
            messages::Command { history: Some(messages::HistoryRequest { channel, limit, since, reverse }), ..empty }
        }
        Request::Rpc { method, data: payload } => {
            let data = payload.as_ref().map(data).unwrap_or_default();
            messages::Command { rpc: Some(messages::RpcRequest { method: method.clone(), data }), ..empty }
        }
        Request::Send => messages::Command { send: Some(messages::SendRequest::default()), ..empty },
        Request::Ping => messages::Command { ping: Some(messages::PingRequest {}), ..empty },
        Request::Pong | Request::Refused { .. } => empty,
    }
}

fn text(payload: &Payload) -> &str {
    std::str::from_utf8(payload.as_bytes()).expect("a payload is UTF-8")
}

fn can_be_passed_on(channel: &str, data: &Payload) {
    let info = Some(ClientInfo { user: "u".into(), client: channel.into() });
    let publication = Publication { offset: 0, at: 0, data: data.clone(), info };
    let push = encode::push(Format::WebSocketJson, channel, &Push::Publication(&publication));
    is_one_line_of_json(push.text());
    assert!(push.len() <= data.len() + 2 * (6 * channel.len()) + 128, "{} bytes", push.len());
    let push = encode::push(Format::StreamProtobuf, channel, &Push::Publication(&publication));
    let read = messages::Reply::decode_length_delimited(push.as_bytes()).expect("it is Protobuf").push.expect("a push");
    assert_eq!((read.channel.as_str(), &*read.r#pub.expect("a publication").data), (channel, data.as_bytes()));
    assert!(Format::StreamProtobuf.pushes_of(channel)(&push) && !Format::StreamProtobuf.pushes_of("other")(&push));
}

fn can_be_answered(id: u32, channel: &str, recover: Option<&Position>) {
    let push = Push::Unsubscribe(codes::INSUFFICIENT_STATE);
    is_one_line_of_json(encode::push(Format::WebSocketJson, channel, &push).text());
    let Some(position) = recover.cloned() else { return };
    let answer = Reply::Subscribe(SubscribeReply { position, recovered: Some(false), publications: Vec::new() });
    let frame = encode::reply(Format::WebSocketJson, id, &answer);
    is_one_line_of_json(frame.text());
    let value: Value = serde_json::from_slice(frame.text()).expect("it is JSON");
    assert_eq!(value["id"], id);
    let frame = encode::reply(Format::StreamProtobuf, id, &answer);
    let read = messages::Reply::decode_length_delimited(frame.as_bytes()).expect("it is Protobuf");
    assert_eq!((read.id, &json!(read.subscribe.expect("a reply").epoch)), (id, &value["subscribe"]["epoch"]));
}

fn is_one_line_of_json(frame: &[u8]) {
    let text = std::str::from_utf8(frame).expect("a frame is UTF-8");
    assert!(!text.contains(['\n', '\r']), "a frame is one line: {text}");
    serde_json::from_str::<&RawValue>(text).expect("a frame is JSON");
}
