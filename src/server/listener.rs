//! A listening socket: TCP, or a Unix socket with the socket file.

use super::admission::Peer;
use crate::config::ListenAddress;
use crate::outbox::KERNEL_BUFFER;
use crate::stream::ClientStream;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Length of the kernel's accept queue, as far as the system allows. When thousands of clients return at once, a client
/// without a place tries again after a second.
pub(super) const BACKLOG: u32 = 4096;

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a listening Unix socket, removed on drop.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, to leave the file of a later process alone. None for a file that belongs to the supervisor.
    identity: Option<(u64, u64)>,
}

impl Listener {
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => bind_unix(path).await,
        }
    }

    /// A listener on a socket whose file belongs to the supervisor, and stays.
    pub(super) fn inherited_unix(socket: UnixListener, path: &Path) -> Self {
        Self::Unix(socket, SocketFile { path: path.to_owned(), identity: None })
    }

    /// The bound address; for port 0 the chosen port.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, file) => Ok(ListenAddress::Unix(file.path.clone())),
        }
    }

    pub async fn accept(&self) -> io::Result<(ClientStream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((stream.into(), Peer::Ip(address.ip())))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| (stream.into(), Peer::Unix)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Lets a restart bind while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit the options.
    socket.set_nodelay(true)?;
    bound_kernel_buffer(&socket2::SockRef::from(&socket));
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Linux and Android only; elsewhere the system's defaults hold.
pub(super) fn bound_kernel_buffer(socket: &socket2::SockRef<'_>) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Err(error) = socket.set_tcp_notsent_lowat(KERNEL_BUFFER as u32) {
        tracing::debug!(%error, "the kernel's buffers stay unbounded");
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = (socket, KERNEL_BUFFER);
}

/// Replaces the socket file of a killed process. A socket in use, or a file of another kind, is an error.
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "the path exists and is not a socket; choose another path",
            ));
        }
        match tokio::net::UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on this socket")),
        }
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    socket.listen(BACKLOG as i32)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, file))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // On failure the next start replaces the file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpStream, UnixStream};

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn accepted_sockets_are_set_up_as_their_listener_is() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), KERNEL_BUFFER as u32);
    }

    #[tokio::test]
    async fn a_socket_file_is_taken_over_from_the_dead_alone_and_removed_at_the_end() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("gateway.sock");
        let bind = async || Listener::bind(&ListenAddress::Unix(path.clone())).await;
        let first = bind().await.unwrap();
        assert_eq!(bind().await.err().unwrap().kind(), ErrorKind::AddrInUse);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), first.accept());
        assert!(client.is_ok() && matches!(accepted, Ok((ClientStream::Unix(_), Peer::Unix))));

        // The state after a kill: a file without a listener.
        let Listener::Unix(socket, file) = first else { panic!("no Unix socket") };
        std::mem::forget(file);
        drop(socket);
        let second = bind().await.unwrap();
        drop(second);
        assert!(!path.exists());

        std::fs::write(&path, "something else").unwrap();
        assert_eq!(bind().await.err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
