//! Commands of a frame, in order. Decoded step by step, since the decoded commands of a whole frame may take fifty times
//! the frame's size; a limited number of commands can be decoded ahead.

use crate::protocol::decode::{ClientFrame, Commands, DecodeError};
use crate::protocol::{Command, Request, Subscribe};
use std::collections::VecDeque;

type Decoded = Result<Command, DecodeError>;

pub(super) struct Upcoming<'a> {
    rest: Commands<'a>,
    /// Commands decoded ahead.
    ahead: VecDeque<Decoded>,
}

pub(super) fn commands(frame: &ClientFrame) -> Upcoming<'_> {
    Upcoming { rest: frame.commands(), ahead: VecDeque::new() }
}

impl Upcoming<'_> {
    /// The subscribes among the next `count` commands, which stay in the list.
    pub fn subscribes(&mut self, count: usize) -> impl Iterator<Item = &Subscribe> {
        let missing = count.saturating_sub(self.ahead.len());
        self.ahead.extend(self.rest.by_ref().take(missing));
        self.ahead.iter().filter_map(|command| match command {
            Ok(Command { request: Request::Subscribe(subscribe), .. }) => Some(subscribe),
            _ => None,
        })
    }
}

impl Iterator for Upcoming<'_> {
    type Item = Decoded;

    fn next(&mut self) -> Option<Decoded> {
        self.ahead.pop_front().or_else(|| self.rest.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_decoded_ahead_stay_in_order() {
        let frame = r#"{"id":1,"ping":{}}{"id":2,"subscribe":{"channel":"a"}}{"id":3,"ping":{}}
            {"id":4,"subscribe":{"channel":"b"}}{"id":5,"subscribe":{"channel":"c"}} nonsense"#;
        let frame = ClientFrame::Json(frame.into());
        let mut upcoming = commands(&frame);
        assert_eq!(upcoming.next().unwrap().unwrap().id, 1);
        let channels = |subscribes: &mut dyn Iterator<Item = &Subscribe>| -> Vec<String> {
            subscribes.map(|subscribe| subscribe.channel.clone()).collect()
        };
        assert_eq!(channels(&mut upcoming.subscribes(3)), ["a", "b"]);
        assert_eq!(upcoming.ahead.len(), 3, "no more than the count is decoded");
        assert_eq!(upcoming.next().unwrap().unwrap().id, 2);
        assert_eq!(channels(&mut upcoming.subscribes(99)), ["b", "c"]);
        let ids: Vec<Option<u32>> = upcoming.map(|command| command.ok().map(|command| command.id)).collect();
        assert_eq!(ids, [Some(3), Some(4), Some(5), None], "the last is malformed");
    }
}
