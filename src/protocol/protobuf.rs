//! The Protobuf encoding: each command, reply or push is a message with its length in front, several in a row.
//! Payloads are the same JSON texts as in the JSON encoding.

mod decode;
mod encode;

pub(super) use decode::{is_push_of, next_envelope, pongs};
pub(super) use encode::{write_disconnect, write_push, write_reply};
