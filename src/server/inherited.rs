//! Listening sockets passed by the supervisor (systemd's socket activation, `LISTEN_FDS`).
//!
//! The supervisor keeps such a socket open while the gateway restarts, so a client that connects in between waits in
//! the kernel's accept queue instead of being refused. A passed socket is used by the listener whose setting has the
//! socket's address: `listen` or `admin_listen`.

use super::listener::{BACKLOG, Listener, bound_kernel_buffer};
use crate::config::ListenAddress;
use listenfd::ListenFd;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Passed sockets that no listener uses yet.
#[derive(Default)]
pub struct Inherited(Vec<Socket>);

enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Inherited {
    /// Takes the sockets named by `LISTEN_FDS` and `LISTEN_PID`, and removes both variables. To be called once, before
    /// other threads run.
    ///
    /// # Errors
    /// If a passed file descriptor is not a listening stream socket.
    pub fn from_environment() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(passed.len());
        for index in 0..passed.len() {
            let socket = match passed.take_tcp_listener(index) {
                Ok(socket) => socket.map(Socket::Tcp),
                Err(_) => passed.take_unix_listener(index)?.map(Socket::Unix),
            };
            sockets.extend(socket);
        }
        Ok(Self(sockets))
    }

    /// The passed socket with this address, set up as a listener.
    pub(super) fn take(&mut self, address: &ListenAddress) -> io::Result<Option<Listener>> {
        let Some(index) = self.0.iter().position(|socket| socket.is_at(address)) else { return Ok(None) };
        self.0.swap_remove(index).into_listener(address).map(Some)
    }

    /// Addresses of the sockets that no listener has taken.
    pub(super) fn unused(&self) -> Vec<String> {
        self.0.iter().map(Socket::describe).collect()
    }
}

impl Socket {
    fn is_at(&self, address: &ListenAddress) -> bool {
        match (self, address) {
            (Self::Tcp(socket), ListenAddress::Tcp(address)) => {
                socket.local_addr().is_ok_and(|own| is_same(own, *address))
            }
            (Self::Unix(socket), ListenAddress::Unix(path)) => {
                socket.local_addr().is_ok_and(|own| own.as_pathname() == Some(path.as_path()))
            }
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Tcp(socket) => socket.local_addr().map_or_else(|error| error.to_string(), |own| own.to_string()),
            Self::Unix(socket) => {
                let address = socket.local_addr().ok();
                let path = address.as_ref().and_then(|own| own.as_pathname()).unwrap_or(Path::new("(unnamed)"));
                format!("unix://{}", path.display())
            }
        }
    }

    fn into_listener(self, address: &ListenAddress) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let options = socket2::SockRef::from(&socket);
                options.set_tcp_nodelay(true)?;
                bound_kernel_buffer(&options);
                // Sets the length of the accept queue of a socket that listens already.
                options.listen(BACKLOG as i32)?;
                tokio::net::TcpListener::from_std(socket).map(Listener::Tcp)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                socket2::SockRef::from(&socket).listen(BACKLOG as i32)?;
                let ListenAddress::Unix(path) = address else { return Err(io::ErrorKind::InvalidInput.into()) };
                Ok(Listener::inherited_unix(tokio::net::UnixListener::from_std(socket)?, path))
            }
        }
    }
}

/// A socket at `[::]` also receives IPv4, so it serves the setting `0.0.0.0` as well.
fn is_same(own: SocketAddr, setting: SocketAddr) -> bool {
    own == setting || (own.port() == setting.port() && own.ip().is_unspecified() && setting.ip().is_unspecified())
}
