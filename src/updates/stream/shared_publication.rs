//! A publication for several subscribers of an updates channel, encoded once per format.

use crate::metrics::Metrics;
use crate::protocol::encode::{self, Push};
use crate::protocol::format::{Format, PerFormat};
use crate::protocol::frame::Frame;
use crate::protocol::{Payload, Publication};

pub(super) struct SharedPublication {
    pub data: Payload,
    frames: PerFormat,
}

impl SharedPublication {
    pub fn new(data: Payload) -> Self {
        Self { data, frames: PerFormat::default() }
    }

    /// The frame for subscribers of this format.
    pub fn frame(&self, channel: &str, format: Format, metrics: &Metrics) -> Frame {
        if self.frames.is_empty() {
            metrics.publications.inc();
        }
        self.frames.get(format, |format| {
            let publication = Publication { offset: 0, at: 0, data: self.data.clone(), info: None };
            encode::push(format, channel, &Push::Publication(&publication))
        })
    }
}
