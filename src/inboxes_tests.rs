use super::*;
use futures_util::FutureExt;
use std::future::poll_fn;

fn inboxes() -> Arc<Inboxes> {
    Arc::default()
}

/// The next frame, if one is waiting; "overflow" at the end.
fn next(handle: &InboxHandle) -> Option<String> {
    poll_fn(|cx| handle.poll_next(cx)).now_or_never().map(|received| match received {
        Received::Frame(ClientFrame::Json(text)) => text.to_string(),
        Received::Frame(ClientFrame::Protobuf(bytes)) => format!("{bytes:?}"),
        Received::Overflow => "overflow".to_owned(),
    })
}

fn session(handle: &InboxHandle) -> SessionName {
    SessionName::parse(&handle.address().session).unwrap()
}

#[test]
fn commands_reach_their_session_in_order_until_its_end() {
    let all = inboxes();
    let (one, other) = (all.open(Encoding::Json), all.open(Encoding::Json));
    assert!(one.address().session != other.address().session && one.address().session.len() == 32);
    for text in ["a", "b"] {
        all.deliver(session(&one), text.into()).unwrap();
    }
    assert_eq!([next(&one), next(&one), next(&one), next(&other)], [Some("a".into()), Some("b".into()), None, None]);
    let name = session(&one);
    drop(one);
    assert_eq!(all.deliver(name, "c".into()), Err(Undeliverable::UnknownSession));
    assert_eq!(all.len(), 1);
    drop(other);
    assert!(all.is_empty());
}

#[test]
fn an_inbox_is_bounded_and_keeps_what_it_has_accepted() {
    let all = inboxes();
    let handle = all.open(Encoding::Json);
    let frame = Bytes::from("x".repeat(1000));
    let accepted = (0..).take_while(|_| all.deliver(session(&handle), frame.clone()).is_ok()).count();
    assert_eq!(accepted, INBOX.div_ceil(1000 + WAITING));
    assert_eq!(all.deliver(session(&handle), frame.clone()), Err(Undeliverable::Full));
    assert!(next(&handle).is_some());
    assert_eq!(all.deliver(session(&handle), frame), Ok(()), "there is room again");
    assert_eq!(std::iter::from_fn(|| next(&handle)).count(), accepted);
    assert_eq!(
        all.deliver(session(&handle), vec![b'y'; 10 * INBOX].into()),
        Ok(()),
        "a large frame fits an empty inbox"
    );
}

#[test]
fn commands_of_another_node_that_find_no_room_end_the_connection_after_those_before() {
    let all = inboxes();
    let handle = all.open(Encoding::Json);
    let parcel = |commands: &str| Parcel { session: session(&handle), commands: commands.to_owned().into() }.message();
    let large = "x".repeat(INBOX);
    for commands in ["first", &large, "lost"] {
        all.message(parcel(commands));
    }
    let received: Vec<_> = (0..4).map(|_| next(&handle)).collect();
    let overflow = || Some("overflow".to_owned());
    assert_eq!(received, [Some("first".into()), Some(large), overflow(), overflow()]);
}

#[test]
fn foreign_messages_and_other_encodings_do_no_harm() {
    let all = inboxes();
    let (json, protobuf) = (all.open(Encoding::Json), all.open(Encoding::Protobuf));
    for message in ["", "short", "a name of no session, and commands"] {
        all.message(message.into());
    }
    let bytes = Bytes::from_static(&[0xff, 0xfe]);
    assert_eq!(all.deliver(session(&json), bytes.clone()), Err(Undeliverable::Malformed));
    assert_eq!(all.deliver(session(&protobuf), bytes), Ok(()));
    assert_eq!((next(&json), next(&protobuf).is_some()), (None, true));
    for text in ["", "ab", &"g".repeat(32), &"é".repeat(16), &"0".repeat(33)] {
        assert!(SessionName::parse(text).is_none(), "{text}");
    }
}

#[test]
fn the_name_of_a_session_is_not_printed() {
    let handle = inboxes().open(Encoding::Json);
    let address = handle.address();
    assert!(!format!("{address:?} {handle:?}").contains(&address.session));
}

#[tokio::test]
async fn a_waiting_reader_is_woken() {
    let all = inboxes();
    let handle = all.open(Encoding::Json);
    let name = session(&handle);
    let reading = tokio::spawn(async move { matches!(poll_fn(|cx| handle.poll_next(cx)).await, Received::Frame(_)) });
    tokio::task::yield_now().await;
    all.deliver(name, "a".into()).unwrap();
    assert!(reading.await.unwrap());
}
