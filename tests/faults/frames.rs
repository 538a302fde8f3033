//! The gateway's frames, as far as the test clients read them.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Deserialize)]
pub struct Frame<'a> {
    #[serde(default)]
    pub id: u32,
    pub error: Option<ErrorReply>,
    pub connect: Option<Connected>,
    #[serde(borrow)]
    pub subscribe: Option<Subscribed<'a>>,
    #[serde(borrow)]
    pub push: Option<Push<'a>>,
}

#[derive(Deserialize)]
pub struct ErrorReply {
    pub code: u32,
}

#[derive(Deserialize)]
pub struct Connected {
    pub ping: u64,
}

#[derive(Deserialize)]
pub struct Subscribed<'a> {
    #[serde(default)]
    pub epoch: Cow<'a, str>,
    #[serde(default)]
    pub offset: u64,
    #[serde(default)]
    pub recovered: bool,
    #[serde(default)]
    pub was_recovering: bool,
    #[serde(borrow, default)]
    pub publications: Vec<Publication<'a>>,
}

#[derive(Deserialize)]
pub struct Push<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    #[serde(borrow, rename = "pub")]
    pub publication: Option<Publication<'a>>,
    pub unsubscribe: Option<Unsubscribe>,
}

#[derive(Deserialize)]
pub struct Publication<'a> {
    #[serde(default)]
    pub offset: u64,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

#[derive(Deserialize)]
pub struct Unsubscribe {
    pub code: u32,
}
