//! JSON and Protobuf: clients of both in one room, and the same meaning of each command and reply in both.

use crate::fuzz_corpus::properties::commands::comes_back;
use crate::harness::client::Client;
use crate::harness::{World, translation};
use konvert_gateway::protocol::codes::{INSUFFICIENT_STATE, INTERNAL, PERMISSION_DENIED};
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::{
    ClientInfo, ConnectReply, HistoryRequest, Movement, Payload, Position, Publication, Reply, Request, StreamAddress,
    Subscribe, SubscribeReply,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The subscribers of both encodings get the same publications, signals and joins, and recover each other's.
#[tokio::test]
async fn a_room_has_subscribers_of_both_encodings() {
    let world = World::start(1, false, &[]).await;
    let (room, users) = world.room(&["ann", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let binary = format!("{}?cf_protocol=protobuf", world.gateway().websocket());
    let (mut ann, mut bob) = (Client::open(&world.gateway().websocket()).await, Client::open(&binary).await);
    ann.log_in(&users[0].token).await;
    bob.log_in(&users[1].token).await;
    let place = ann.subscribe(&channel).await;
    assert_eq!(bob.subscribe(&channel).await, place);
    world.pocketbase.write(&room, &users[0], "привет 👋").await;
    let publication = ann.message_publication().await;
    assert_eq!(publication["data"]["record"]["content"], "привет 👋");
    assert_eq!(bob.message_publication().await, publication);
    bob.call("publish", json!({"channel": channel, "data": {"type": "typing", "in": [1, 2.5, null]}})).await;
    let signal = ann.signal().await;
    assert_eq!(signal["data"], json!({"type": "typing", "in": [1, 2.5, null]}));
    assert_eq!(bob.signal().await, signal);
    let (seen_by_ann, seen_by_bob) = (
        ann.call("presence", json!({"channel": channel})).await,
        bob.call("presence", json!({"channel": channel})).await,
    );
    assert_eq!(seen_by_ann["presence"], seen_by_bob["presence"]);
    assert_eq!(seen_by_bob["presence"]["presence"].as_object().map(serde_json::Map::len), Some(2));
    bob.call("unsubscribe", json!({"channel": channel})).await;
    let recovered = bob.recover(&channel, &place).await;
    assert_eq!((&recovered["recovered"], &recovered["publications"][0]), (&json!(true), &publication));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}:[a-z0-9]{0,15}", "\\PC{1,20}"]
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), "[a-zA-Z0-9]{1,8}").prop_map(|(offset, epoch)| Position { offset, epoch })
}

/// JSON values, as texts of one line.
fn payload() -> impl Strategy<Value = Payload> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC{0,6}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    });
    // `null` stands for no value.
    value
        .prop_filter("a value", |value| !value.is_null())
        .prop_map(|value| Payload::parse(&value.to_string()).expect("JSON"))
}

fn request() -> impl Strategy<Value = Request> {
    let subscribe = (name(), prop::option::of(position()), any::<(bool, bool, bool)>()).prop_map(
        |(channel, recover, (reject_unrecovered, join_leave, echo))| {
            Request::Subscribe(Subscribe { channel, recover, reject_unrecovered, join_leave, echo })
        },
    );
    let history = (name(), any::<i32>(), prop::option::of(position()), any::<bool>()).prop_map(
        |(channel, limit, since, reverse)| Request::History(HistoryRequest { channel, limit, since, reverse }),
    );
    prop_oneof![
        "\\PC{0,40}".prop_map(|token| Request::Connect { token }),
        subscribe,
        history,
        name().prop_map(|channel| Request::Unsubscribe { channel }),
        (name(), payload()).prop_map(|(channel, data)| Request::Publish { channel, data }),
        name().prop_map(|channel| Request::Presence { channel }),
        name().prop_map(|channel| Request::PresenceStats { channel }),
        ("\\PC{0,10}", prop::option::of(payload())).prop_map(|(method, data)| Request::Rpc { method, data }),
        "\\PC{0,40}".prop_map(|token| Request::Refresh { token }),
        name().prop_map(|channel| Request::SubRefresh { channel }),
        Just(Request::Ping),
        Just(Request::Send),
    ]
}

fn client() -> impl Strategy<Value = ClientInfo> {
    ("\\PC{0,10}", "[a-f0-9]{1,32}").prop_map(|(user, client)| ClientInfo { user: user.into(), client: client.into() })
}

fn publication() -> impl Strategy<Value = Publication> {
    (any::<u32>(), payload(), prop::option::of(client())).prop_map(|(offset, data, info)| Publication {
        offset: offset.into(),
        at: 0,
        data,
        info,
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    let publications = || prop::collection::vec(publication(), 0..4);
    let stream = ("[a-f0-9]{32}", "[a-f0-9]{32}").prop_map(|(node, session)| StreamAddress { node, session });
    let connect = ("[a-f0-9]{32}", prop::option::of(1..100_000u32), 1..100u32, prop::option::of(stream))
        .prop_map(|(client, ttl, ping, stream)| Reply::Connect(ConnectReply { client, ttl, ping, stream }));
    // Offsets of missed publications count from 1.
    let missed = publications().prop_map(|mut publications| {
        (1..).zip(&mut publications).for_each(|(offset, publication)| publication.offset = offset);
        publications
    });
    let subscribe =
        (position(), prop::option::of(any::<bool>()), missed).prop_map(|(position, recovered, publications)| {
            Reply::Subscribe(SubscribeReply { position, recovered, publications })
        });
    prop_oneof![
        connect,
        subscribe,
        payload().prop_map(Reply::SubscribeState),
        Just(Reply::Unsubscribe),
        Just(Reply::Publish),
        (publications(), position()).prop_map(|(publications, position)| Reply::History { publications, position }),
        prop::collection::vec(client(), 0..4).prop_map(Reply::Presence),
        (0..1_000_000usize, 0..1_000_000usize).prop_map(|(clients, users)| Reply::PresenceStats { clients, users }),
        payload().prop_map(Reply::Rpc),
        ("[a-f0-9]{32}", 1..100_000u32).prop_map(|(client, ttl)| Reply::Refresh { client, ttl }),
        Just(Reply::Ping),
        prop_oneof![Just(PERMISSION_DENIED), Just(INTERNAL)].prop_map(Reply::Error),
    ]
}

/// Both frames as JSON values.
fn in_both(encode: impl Fn(Format) -> konvert_gateway::protocol::frame::Frame) -> (Value, Value) {
    let json = serde_json::from_slice(encode(Format::WebSocketJson).text()).expect("a frame is JSON");
    let protobuf = translation::replies(encode(Format::StreamProtobuf).as_bytes());
    (json, serde_json::from_str(&protobuf).expect("a translation is JSON"))
}

proptest! {
    #[test]
    fn a_command_means_the_same_in_both(id in 1..u32::MAX, request in request()) {
        comes_back(id, &request);
    }

    #[test]
    fn a_reply_means_the_same_in_both(id in 1..u32::MAX, reply in reply()) {
        let (json, protobuf) = in_both(|format| encode::reply(format, id, &reply));
        prop_assert_eq!(json, protobuf);
    }

    #[test]
    fn a_push_means_the_same_in_both(channel in name(), publication in publication(), info in client()) {
        let pushes = [
            Push::Publication(&publication),
            Push::Movement(Movement::Join, &info),
            Push::Movement(Movement::Leave, &info),
            Push::Unsubscribe(INSUFFICIENT_STATE),
        ];
        for push in &pushes {
            let (json, protobuf) = in_both(|format| encode::push(format, &channel, push));
            prop_assert_eq!(json, protobuf);
        }
    }
}
