//! Formats in Redis: pub/sub messages, histories, presence, statuses and the mark.
//!
//! Messages:
//!
//! - publication: `p{offset}:{epoch}:{time of the outbox row}:{data}`, written by `publish.lua`. In a cluster,
//!   `b{offset}:{epoch}:` with the position of the newest earlier barrier comes first.
//! - signal: `s{length}:{info}{data}`, with the length of the JSON `info`
//! - a client's join `j{info}` and leave `l{info}`, written by the presence scripts
//! - message to one node: `n{message}`
//! - status: `v{version}:{status}:{last seen}`, written by `status.lua`
//!
//! Other programs with access to Redis can write anything; the parsers accept well-formed messages only.

use crate::broker::status_store::{Choice, Mode, UserStatus};
use crate::broker::{BrokerError, History, Mark, PresenceStats};
use crate::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use bytes::Bytes;
use redis::Value;

#[derive(Debug, PartialEq)]
pub enum Message {
    /// `after`: position of the newest earlier barrier.
    Publication {
        epoch: String,
        publication: Publication,
        after: Option<Position>,
    },
    Signal(Publication),
    Movement(Movement, ClientInfo),
    Status(UserStatus),
    /// For this node alone.
    Node(Bytes),
}

/// Parses a message; `None` for a foreign or malformed message. The payload shares the message's memory.
pub fn read(message: &Bytes) -> Option<Message> {
    let (kind, rest) = message.split_first()?;
    match kind {
        b'p' => publication(message, rest, None),
        b'b' => {
            let (barrier, rest) = position(rest)?;
            publication(message, rest.strip_prefix(b"p")?, Some(barrier))
        }
        b's' => {
            let (length, rest) = number(rest)?;
            let (info, data) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            let info: ClientInfo = serde_json::from_slice(info).ok()?;
            let data = payload(message.slice_ref(data))?;
            Some(Message::Signal(Publication { offset: 0, at: 0, data, info: Some(info) }))
        }
        b'j' => Some(Message::Movement(Movement::Join, serde_json::from_slice(rest).ok()?)),
        b'l' => Some(Message::Movement(Movement::Leave, serde_json::from_slice(rest).ok()?)),
        b'n' => Some(Message::Node(message.slice_ref(rest))),
        b'v' => {
            let (version, rest) = number(rest)?;
            let (status, last_seen) = std::str::from_utf8(rest).ok()?.split_once(':')?;
            state(status, last_seen, version).map(Message::Status)
        }
        _ => None,
    }
}

/// Parses the part of a publication behind the `p`.
fn publication(message: &Bytes, rest: &[u8], after: Option<Position>) -> Option<Message> {
    let (Position { offset, epoch }, rest) = position(rest)?;
    let (at, data) = number(rest)?;
    let data = payload(message.slice_ref(data))?;
    Some(Message::Publication { epoch, publication: Publication { offset, at, data, info: None }, after })
}

/// The prefix of a publication with the position of the newest barrier.
pub fn barrier(Position { offset, epoch }: &Position) -> String {
    format!("b{offset}:{epoch}:")
}

/// Parses `{offset}:{epoch}:`; returns the rest too.
fn position(text: &[u8]) -> Option<(Position, &[u8])> {
    let (offset, rest) = number(text).filter(|(offset, _)| (1..=COUNT_MAX).contains(offset))?;
    let colon = rest.iter().take(MAX_EPOCH + 1).position(|&b| b == b':')?;
    Some((Position { offset, epoch: epoch(&rest[..colon])? }, &rest[colon + 1..]))
}

fn state(status: &str, last_seen: &str, version: u64) -> Option<UserStatus> {
    let last_seen = if last_seen.is_empty() { None } else { Some(last_seen.parse().ok()?) };
    Some(UserStatus { status: word(status)?, last_seen, version })
}

/// The value of an enum with this name.
fn word<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

pub fn signal(data: &Payload, info: &ClientInfo) -> Vec<u8> {
    let info = info_json(info);
    let mut message = format!("s{}:", info.len()).into_bytes();
    message.extend_from_slice(&info);
    message.extend_from_slice(data.as_bytes());
    message
}

pub fn node_message(message: &[u8]) -> Vec<u8> {
    [b"n", message].concat()
}

pub fn info_json(info: &ClientInfo) -> Vec<u8> {
    serde_json::to_vec(info).expect("two strings can be written as JSON")
}

/// The reply of `history.lua`.
pub fn read_history(reply: Value) -> Result<History, BrokerError> {
    let unreadable = || BrokerError::Corrupt("a channel's history".into());
    let [epoch_value, offset, entries] = array(reply).ok_or_else(unreadable)?;
    let position = Position {
        epoch: bytes(epoch_value).and_then(|text| epoch(&text)).ok_or_else(unreadable)?,
        offset: read_number(&offset).filter(|offset| *offset <= COUNT_MAX).ok_or_else(unreadable)?,
    };
    let Value::Array(entries) = entries else { return Err(unreadable()) };
    let publications = entries.into_iter().map(read_entry).collect::<Option<_>>().ok_or_else(unreadable)?;
    Ok(History { publications, position })
}

/// Parses a stream entry: the id `{offset}-0`, then a single field, `d`.
fn read_entry(entry: Value) -> Option<Publication> {
    let [id, fields] = array(entry)?;
    let [_, data] = array(fields)?;
    let id = bytes(id)?;
    let offset = std::str::from_utf8(&id).ok()?.strip_suffix("-0")?.parse().ok()?;
    (1..=COUNT_MAX).contains(&offset).then_some(())?;
    Some(Publication { offset, at: 0, data: payload(bytes(data)?)?, info: None })
}

/// The reply of `presence.lua`.
pub fn read_presence(reply: Value) -> Result<Vec<ClientInfo>, BrokerError> {
    let unreadable = || BrokerError::Corrupt("a channel's presence".into());
    let infos = match reply {
        Value::Array(infos) => infos,
        Value::Int(_) => return Err(BrokerError::Crowded),
        _ => return Err(unreadable()),
    };
    let read = |info| bytes(info).and_then(|json| serde_json::from_slice(&json).ok());
    infos.into_iter().map(read).collect::<Option<_>>().ok_or_else(unreadable)
}

/// The reply of `presence_stats.lua`.
pub fn read_presence_stats(reply: &Value) -> Result<PresenceStats, BrokerError> {
    let numbers = match reply {
        Value::Array(numbers) => numbers.iter().map(read_number).collect::<Option<Vec<u64>>>(),
        _ => None,
    };
    match numbers.as_deref() {
        Some(&[clients, users]) => Ok(PresenceStats { clients: clients as usize, users: users as usize }),
        _ => Err(BrokerError::Corrupt("the numbers of a channel's presence".into())),
    }
}

/// The reply of `status_get.lua` for `count` users.
pub fn read_states(reply: &Value, count: usize) -> Option<Vec<Option<UserStatus>>> {
    let texts = texts(reply).filter(|texts| texts.len() == 3 * count)?;
    let read = |parts: &[&str]| match parts {
        ["", ..] => Some(None),
        [status, last_seen, version] => state(status, last_seen, version.parse().ok()?).map(Some),
        _ => None,
    };
    texts.chunks(3).map(read).collect()
}

/// The reply of `status_lease.lua`: an answer per lease, which is `None` for a new connection past the user's limit of
/// connections. `None` instead of all answers: the reply is unreadable.
pub fn read_leased(reply: &Value, count: usize) -> Option<Vec<Option<Choice>>> {
    let texts = texts(reply).filter(|texts| texts.len() == 2 * count)?;
    let each = |parts: &[&str]| if parts[0].is_empty() { Some(None) } else { choice(parts[0], parts[1]).map(Some) };
    texts.chunks(2).map(each).collect()
}

pub fn read_count(reply: &Value) -> Option<usize> {
    match reply {
        Value::Int(count) => (*count).try_into().ok(),
        _ => None,
    }
}

/// The reply of `status_choose.lua`.
pub fn read_chosen(reply: &Value) -> Option<(Choice, UserStatus)> {
    let [mode, at, status, last_seen, version] = texts(reply)?.try_into().ok()?;
    Some((choice(mode, at)?, state(status, last_seen, version.parse().ok()?)?))
}

fn choice(mode: &str, at: &str) -> Option<Choice> {
    Some(Choice { mode: word::<Mode>(mode)?, at: at.parse().ok()? })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn texts(reply: &Value) -> Option<Vec<&str>> {
    let Value::Array(values) = reply else { return None };
    values.iter().map(text).collect()
}

/// A number, as an integer reply or as decimal text.
pub fn read_number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The answer of `HMGET` for a position's offset and epoch.
pub fn read_position(answer: &Value) -> Option<Position> {
    let Value::Array(fields) = answer else { return None };
    let [offset, epoch_value] = fields.as_slice() else { return None };
    let offset = read_number(offset).filter(|offset| (1..=COUNT_MAX).contains(offset))?;
    Some(Position { offset, epoch: epoch(text(epoch_value)?.as_bytes())? })
}

/// A [`Mark`] as stored in Redis: generation, seq, fingerprint and boot, decimal; in a cluster also the position of the
/// newest barrier up to the mark.
pub fn mark(Mark { generation, seq, fingerprint, boot }: Mark, barrier: Option<&Position>) -> String {
    let mark = format!("{generation} {seq} {fingerprint} {boot}");
    barrier.map_or(mark.clone(), |Position { offset, epoch }| format!("{mark} {offset}:{epoch}:"))
}

pub fn read_mark(value: &Value) -> Option<(Mark, Option<Position>)> {
    let mut parts = text(value)?.split(' ');
    let mut next = || parts.next()?.parse().ok();
    let mark = Mark { generation: next()?, seq: next()?, fingerprint: next()?, boot: next()? };
    let barrier = match parts.next() {
        None => None,
        Some(barrier) => Some(position(barrier.as_bytes()).filter(|(_, rest)| rest.is_empty())?.0),
    };
    (parts.next().is_none() && mark.generation.max(mark.seq) <= COUNT_MAX).then_some((mark, barrier))
}

/// Largest number that Redis can count to. A higher number is refused: no counter produced the number, and counting on
/// could overflow.
const COUNT_MAX: u64 = i64::MAX as u64;

/// Checks the guarantees of [`Payload`] that are visible in the bytes: not empty, one line, UTF-8.
fn payload(data: Bytes) -> Option<Payload> {
    let one_line = !data.is_empty() && !data.iter().any(|b| matches!(b, b'\n' | b'\r'));
    (one_line && std::str::from_utf8(&data).is_ok()).then(|| Payload::trusted(data))
}

const MAX_EPOCH: usize = 32;

fn epoch(text: &[u8]) -> Option<String> {
    let plausible = (1..=MAX_EPOCH).contains(&text.len()) && text.iter().all(u8::is_ascii_alphanumeric);
    plausible.then(|| String::from_utf8_lossy(text).into_owned())
}

/// Parses a decimal number and a colon; returns the rest too.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let colon = text.iter().take(MAX_DIGITS + 1).position(|&b| b == b':')?;
    let number = std::str::from_utf8(&text[..colon]).ok()?.parse().ok()?;
    Some((number, &text[colon + 1..]))
}

/// Number of digits of `u64::MAX`.
const MAX_DIGITS: usize = 20;

fn array<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(values) => values.try_into().ok(),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::status_store::Status;
    use proptest::prelude::*;

    fn data(text: &'static str) -> Payload {
        Payload::trusted(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_publication_is_read_without_copying_its_payload() {
        let message = Bytes::from_static(b"p17:0a1b2c:1800000000000:{\"a\":\"b:c\"}");
        let Some(Message::Publication { epoch, publication, after: None }) = read(&message) else {
            panic!("unreadable")
        };
        assert_eq!((epoch.as_str(), publication.offset, publication.at), ("0a1b2c", 17, 1_800_000_000_000));
        assert_eq!(publication.data, data("{\"a\":\"b:c\"}"));
        assert_eq!(publication.data.as_bytes().as_ptr(), message[25..].as_ptr());
    }

    #[test]
    fn a_barrier_comes_back_with_a_publication_and_with_the_mark() {
        let at = Position { offset: 41, epoch: "access1".into() };
        let message = Bytes::from(format!("{}p7:epoch:0:{{}}", barrier(&at)));
        let publication = Publication { offset: 7, at: 0, data: data("{}"), info: None };
        let expected = Message::Publication { epoch: "epoch".into(), publication, after: Some(at.clone()) };
        assert_eq!(read(&message), Some(expected));
        let it = Mark { generation: 1, seq: 2, fingerprint: 3, boot: 4 };
        for barrier in [None, Some(at.clone())] {
            let kept = Value::BulkString(mark(it, barrier.as_ref()).into());
            assert_eq!(read_mark(&kept), Some((it, barrier)));
        }
        for bad in ["1 2 3", "1 2 3 4 5", "1 2 3 4 5:e", "1 2 3 4 0:e:", "1 2 3 4 5:e: ", "1 2 3 4 5:e: 6", "1 2 3 4 "]
        {
            assert_eq!(read_mark(&Value::BulkString(bad.into())), None, "{bad:?}");
        }
        let field = |text: &str| Value::BulkString(text.into());
        assert_eq!(read_position(&Value::Array(vec![field("41"), field("access1")])), Some(at));
        assert_eq!(read_position(&Value::Array(vec![Value::Nil, Value::Nil])), None);
    }

    #[test]
    fn a_signal_comes_back() {
        let info = ClientInfo { user: "ü:{\"".into(), client: "c".into() };
        let message = signal(&data("{}"), &info).into();
        assert_eq!(
            read(&message),
            Some(Message::Signal(Publication { offset: 0, at: 0, data: data("{}"), info: Some(info) }))
        );
    }

    #[test]
    fn a_status_and_a_movement_are_read() {
        let read = |text: &'static str| read(&Bytes::from_static(text.as_bytes()));
        let state = UserStatus { status: Status::Dnd, last_seen: Some(7), version: 1_700_000_000_000_001 };
        assert_eq!(read("v1700000000000001:dnd:7"), Some(Message::Status(state)));
        let never = UserStatus { status: Status::Offline, last_seen: None, version: 3 };
        assert_eq!(read("v3:offline:"), Some(Message::Status(never)));
        let info = ClientInfo { user: "u".into(), client: "c".into() };
        assert_eq!(read(r#"l{"user":"u","client":"c"}"#), Some(Message::Movement(Movement::Leave, info)));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let foreign: [&[u8]; 30] = [
            b"b",
            b"b5:abc:",
            b"b5:p1:abc:0:{}",
            b"b0:abc:p1:abc:0:{}",
            b"b5:abc:s2:{}{}",
            b"b5:abc:b5:abc:p1:abc:0:{}",
            b"v",
            b"v1:asleep:2",
            b"v1:online:x",
            b"v1:online",
            b"j{}",
            b"",
            b"p",
            b"p1",
            b"p1:",
            b"p1:abc",
            b"p1:abc:0",
            b"p1:abc:0x",
            b"p1:abc:0:",
            b"p0:abc:0:{}",
            b"p-1:abc:0:{}",
            b"p1::0:{}",
            b"p9223372036854775808:abc:0:{}",
            b"p18446744073709551616:abc:0:{}",
            b"p1:abc:0:{\n}",
            b"p1:abc:0:\xff",
            b"p1:abc:x:{}",
            b"s99:{}",
            b"s2:{}{}",
            b"{\"hello\":1}",
        ];
        for message in foreign {
            assert_eq!(read(&Bytes::from_static(message)), None, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&message.into());
        }

        #[test]
        fn nearly_ours_does_no_harm(message in "(b[0-9]:[a-f]{1,3}:)?[psvjl]?[0-9]{0,21}:?[a-f0-9:]{0,40}[{}\":\n]{0,4}") {
            let _ = read(&message.into_bytes().into());
        }
    }
}
