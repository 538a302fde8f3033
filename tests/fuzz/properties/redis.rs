//! Data from Redis: published messages, separated by NUL; or, if the input begins as an answer in Redis's protocol,
//! such an answer. The contents go through a channel's feed, in this order.

use bytes::Bytes;
use konvert_gateway::broker::History;
use konvert_gateway::broker::redis::wire::{self, Message};
use konvert_gateway::broker::status_store::UserStatus;
use konvert_gateway::hub::Mailbox;
use konvert_gateway::hub::feed::Feed;
use konvert_gateway::inboxes::Inboxes;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::{ClientInfo, Position, Publication};

pub fn check(input: &[u8]) {
    let mut feed = Feed::default();
    for part in input.split(|byte| *byte == 0) {
        if part.first() == Some(&b'*') || part.first() == Some(&b'$') || part.first() == Some(&b':') {
            answer(part, &mut feed);
        } else {
            message(&Bytes::copy_from_slice(part), &mut feed);
        }
    }
}

fn message(bytes: &Bytes, feed: &mut Feed) {
    match wire::read(bytes) {
        Some(Message::Publication { epoch, publication, after }) => {
            is_sound(&publication);
            assert!(publication.offset > 0 && publication.info.is_none());
            assert!(bytes.ends_with(publication.data.as_bytes()));
            if let Some(after) = after {
                let message = format!("{}p1:e:0:{{}}", wire::barrier(&after)).into();
                let again = wire::read(&message);
                assert!(matches!(again, Some(Message::Publication { after: Some(again), .. }) if again == after));
            }
            feed.arrive(&epoch, &publication);
        }
        Some(Message::Signal(publication)) => {
            is_sound(&publication);
            let info = publication.info.as_ref().expect("a signal has a sender");
            let again = wire::read(&wire::signal(&publication.data, info).into());
            assert_eq!(again, Some(Message::Signal(publication)));
        }
        Some(Message::Movement(_, info)) => {
            let json = wire::info_json(&info);
            assert!(serde_json::from_slice::<ClientInfo>(&json).is_ok_and(|again| again == info));
        }
        Some(Message::Status(state)) => {
            let again = serde_json::from_slice::<UserStatus>(state.payload().as_bytes());
            assert!(again.is_ok_and(|again| again == state));
        }
        Some(Message::Node(message)) => {
            assert_eq!(wire::node_message(&message), bytes[..]);
            // Commands for a session that does not exist.
            Inboxes::default().message(message);
        }
        None => {}
    }
}

fn answer(bytes: &[u8], feed: &mut Feed) {
    let Ok(value) = redis::parse_redis_value(bytes) else { return };
    let _ = (wire::read_number(&value), wire::read_presence(value.clone()), wire::read_presence_stats(&value));
    let _ = (wire::read_states(&value, 1), wire::read_leased(&value, 1), wire::read_chosen(&value));
    if let Some((mark, barrier)) = wire::read_mark(&value) {
        let again = redis::Value::BulkString(wire::mark(mark, barrier.as_ref()).into_bytes());
        assert_eq!(wire::read_mark(&again), Some((mark, barrier)));
        assert!(mark.generation.max(mark.seq) <= i64::MAX as u64, "what cannot be counted on from: {mark:?}");
    }
    let Ok(history) = wire::read_history(value) else { return };
    history.publications.iter().for_each(is_sound);
    reads(feed, history);
}

/// Subscribers join at the history's newest position and after each of its publications; then the feed goes on.
fn reads(feed: &mut Feed, history: History) {
    let Position { offset, epoch } = history.position.clone();
    let offsets = history.publications.iter().map(|publication| publication.offset).chain([offset]).take(8);
    for offset in offsets {
        let since = Position { offset, epoch: epoch.clone() };
        let _ = feed.join(Some(&since), None);
        let _ = feed.join(Some(&since), Some(history.clone()));
        let _ = feed.is_behind(&since);
    }
    feed.doubt();
    let _ = feed.begin_sync();
    let _ = feed.finish_sync(history);
}

fn is_sound(publication: &Publication) {
    assert!(publication.offset <= i64::MAX as u64, "what cannot be counted on from: {}", publication.offset);
    let push = encode::push(Format::WebSocketJson, "room:a", &Push::Publication(publication));
    let text = std::str::from_utf8(push.text()).expect("a frame is UTF-8");
    assert!(!text.contains(['\n', '\r']), "a frame is one line");
    assert!(push.len() <= publication.data.len() + 6 * info_size(publication) + 128);
}

fn info_size(publication: &Publication) -> usize {
    publication.info.as_ref().map_or(0, |info| info.user.len() + info.client.len())
}
