//! Writes to a client's socket, without waiting.

use crate::stream::ClientStream;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};
use tokio::io::Interest;

/// Destination of frames.
pub trait Wire: Send + Sync {
    /// Writes as many bytes as there is room for, without waiting. Returns the number of bytes written.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Wire for ClientStream {
    /// Bypasses tokio until the socket is full: tokio would check the socket's readiness before each write.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match send(self, parts) {
            // Repeated through tokio, so that tokio waits for room.
            Err(Errno::WOULDBLOCK) => self.try_io(Interest::WRITABLE, || Ok(send(self, parts)?)),
            sent => Ok(sent?),
        }
    }
}

fn send(socket: &ClientStream, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match parts {
        [one] => rustix::net::send(socket, one, flags),
        several => rustix::net::sendmsg(socket, several, &mut SendAncillaryBuffer::default(), flags),
    }
}
