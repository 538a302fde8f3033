//! Decoding of JSON commands.

use crate::protocol::decode::{Content, Envelope, Pongs};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::StreamDeserializer;
use serde_json::de::StrRead;
use serde_json::value::RawValue;

/// The envelopes of a text.
pub(in crate::protocol) type Envelopes<'a> = StreamDeserializer<'a, StrRead<'a>, Envelope<&'a RawValue>>;

pub(in crate::protocol) fn envelopes(text: &str) -> Envelopes<'_> {
    serde_json::Deserializer::from_str(text).into_iter()
}

pub(in crate::protocol) fn pongs(text: &str) -> Pongs {
    let is_pong = |line: &str| line.trim_ascii() == "{}";
    if is_pong(text) {
        Pongs::Alone
    } else if text.lines().any(is_pong) {
        Pongs::Among
    } else {
        Pongs::None
    }
}

impl Content for &RawValue {
    fn read<M: DeserializeOwned>(self) -> Option<M> {
        serde_json::from_str(self.get()).ok()
    }
}

/// Reads JSON `null` as an absent field, as the JSON form of Protobuf has it.
pub(in crate::protocol) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    field: D,
) -> Result<T, D::Error> {
    Option::deserialize(field).map(Option::unwrap_or_default)
}

/// Reads any JSON value as its text: in JSON, fields of type `bytes` contain plain JSON.
pub(in crate::protocol) fn raw<'de, D: Deserializer<'de>>(field: D) -> Result<Bytes, D::Error> {
    let value: Option<&RawValue> = Option::deserialize(field)?;
    Ok(value.map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value.get().as_bytes())))
}

/// Reads a JSON string as bytes.
pub(in crate::protocol) fn text<'de, D: Deserializer<'de>>(field: D) -> Result<Bytes, D::Error> {
    Ok(or_default::<D, String>(field)?.into())
}
