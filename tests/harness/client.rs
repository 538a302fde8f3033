//! A minimal client: sends what the test asks for, valid or not, and keeps every received frame.

use super::DEADLINE;
use super::gateway::Gateway;
use super::translation::{self, PROTOBUF};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Pushes that arrived during a wait for another frame.
    pushes: VecDeque<Value>,
    next_id: u32,
    /// Whether the client speaks Protobuf. Tests write and read JSON in any case.
    protobuf: bool,
    /// The gateway's pings so far, all answered.
    pub pings: u32,
}

/// The URL, with the encoding of the tests if the URL names none.
fn with_encoding(url: &str) -> String {
    if *PROTOBUF && !url.contains('?') { format!("{url}?format=protobuf") } else { url.to_owned() }
}

/// The server's answer to a failed handshake.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub status: u16,
    pub retry_after: bool,
}

/// A position in a channel, from a subscribe reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub offset: u64,
    pub epoch: String,
}

impl Place {
    pub fn of(result: &Value) -> Self {
        let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
        Self { offset: result["offset"].as_u64().unwrap_or_default(), epoch }
    }
}

impl Client {
    /// Opens a WebSocket without sending a command.
    pub async fn open(url: &str) -> Self {
        Self::try_open(url).await.expect("the handshake succeeds")
    }

    /// Like `open`, but returns `None` if the gateway is down or refuses.
    pub async fn try_open(url: &str) -> Option<Self> {
        let url = with_encoding(url);
        let (socket, _) = connect_async(&url).await.ok()?;
        Some(Self::on(socket, &url))
    }

    /// Opens a WebSocket with a small receive buffer, so that the gateway soon notices when the client stops reading.
    pub async fn open_narrow(gateway: &Gateway) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(([127, 0, 0, 1], gateway.port).into()).await.expect("the gateway accepts");
        let stream = MaybeTlsStream::Plain(stream);
        let url = with_encoding(&gateway.websocket());
        let (socket, _) = client_async(&url, stream).await.expect("the handshake succeeds");
        Self::on(socket, &url)
    }

    /// Opens a WebSocket from a local address, with extra headers; returns the refusal if the handshake fails.
    pub async fn open_from(gateway: &Gateway, from: Ipv4Addr, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        Self::open_at(&gateway.websocket(), from, headers).await
    }

    /// Like [`Client::open_from`], for a local URL with a port.
    pub async fn open_at(url: &str, from: Ipv4Addr, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let url = with_encoding(url);
        let mut request = url.as_str().into_client_request().expect("a URL");
        let port = request.uri().port_u16().expect("a port");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let stream = super::connect_from(from, port).await.expect("the server accepts");
        match client_async(request, MaybeTlsStream::Plain(stream)).await {
            Ok((socket, _)) => Ok(Self::on(socket, &url)),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response.headers().contains_key("retry-after"),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    fn on(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, url: &str) -> Self {
        Self { socket, pushes: VecDeque::new(), next_id: 1, protobuf: url.contains("=protobuf"), pings: 0 }
    }

    /// Opens a WebSocket and connects as the token's user.
    pub async fn connect(gateway: &Gateway, token: &str) -> Self {
        let mut client = Self::open(&gateway.websocket()).await;
        client.log_in(token).await;
        client
    }

    /// Connects as the token's user; returns the client id.
    pub async fn log_in(&mut self, token: &str) -> String {
        let reply = self.call("connect", json!({"token": token})).await;
        reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// Sends one command and returns its reply.
    pub async fn call(&mut self, command: &str, request: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"id": id, command: request}).to_string()).await;
        self.reply(id).await
    }

    /// Waits for the reply to the command with this id.
    pub async fn reply(&mut self, id: u32) -> Value {
        loop {
            let frame = self.frame().await.unwrap_or_else(|close| panic!("closed before the reply: {close:?}"));
            if frame["id"] == id {
                return frame;
            }
            self.pushes.push_back(frame);
        }
    }

    pub async fn subscribe(&mut self, channel: &str) -> Place {
        let reply = self.call("subscribe", json!({"channel": channel})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        Place::of(&reply["subscribe"])
    }

    /// Subscribes again from a position; returns the result.
    pub async fn recover(&mut self, channel: &str, place: &Place) -> Value {
        let Place { offset, epoch } = place;
        let request = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
        self.call("subscribe", request).await["subscribe"].take()
    }

    /// The position of a subscribed channel.
    pub async fn history_position(&mut self, channel: &str) -> Place {
        Place::of(&self.call("history", json!({"channel": channel})).await["history"])
    }

    /// The next publication.
    pub async fn publication(&mut self) -> Value {
        loop {
            let mut push = self.push().await;
            if push["push"]["pub"].is_object() {
                return push["push"]["pub"].take();
            }
        }
    }

    /// The next text frame that is no ping, unparsed; the close frame at the end.
    pub async fn text(&mut self) -> Result<Utf8Bytes, Option<CloseFrame>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) if text.as_str() == "{}" => self.pong().await,
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Binary(frame))) if frame[..] == [0] => self.pong().await,
                Some(Ok(Message::Binary(frame))) => return Ok(translation::replies(&frame).into()),
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    async fn pong(&mut self) {
        self.pings += 1;
        self.send("{}").await;
    }

    /// The next publication of a message. Other publications, such as the room's memberships, may still be under way
    /// at the beginning of a test.
    pub async fn message_publication(&mut self) -> Value {
        loop {
            let publication = self.publication().await;
            if publication["data"]["collection"] == "messages" {
                return publication;
            }
        }
    }

    /// The next publication, except changes of `collections`.
    pub async fn publication_but_of(&mut self, collections: &[&str]) -> Value {
        loop {
            let publication = self.publication().await;
            if !publication["data"]["collection"].as_str().is_some_and(|name| collections.contains(&name)) {
                return publication;
            }
        }
    }

    /// The next signal.
    pub async fn signal(&mut self) -> Value {
        loop {
            let publication = self.publication().await;
            if publication["info"].is_object() {
                return publication;
            }
        }
    }

    /// The content of the next message.
    pub async fn message(&mut self) -> String {
        self.message_publication().await["data"]["record"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// The next unsubscribe push.
    pub async fn unsubscribed(&mut self) -> Value {
        loop {
            let mut push = self.push().await;
            if push["push"]["unsubscribe"].is_object() {
                return push["push"]["unsubscribe"].take();
            }
        }
    }

    /// A push that arrived during a wait for another frame.
    pub fn waiting(&mut self) -> Option<Value> {
        self.pushes.pop_front()
    }

    pub async fn push(&mut self) -> Value {
        match self.pushes.pop_front() {
            Some(push) => push,
            None => self.frame().await.unwrap_or_else(|close| panic!("closed: {close:?}")),
        }
    }

    /// The close code and reason; earlier frames are dropped.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.frame().await {
                return close.map_or((1006, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
            }
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.send_raw(Message::text(text)).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        let message = match message {
            Message::Text(text) if self.protobuf => Message::binary(translation::commands(&text)),
            other => other,
        };
        // Sending may fail after a close by the gateway; the test looks at the close instead.
        let _ = self.socket.send(message).await;
    }

    /// The next text frame as JSON, with pings answered; the close frame as an error.
    async fn frame(&mut self) -> Result<Value, Option<CloseFrame>> {
        let text = timeout(DEADLINE, self.text()).await.expect("something arrives in time")?;
        Ok(serde_json::from_str(&text).expect("a frame is JSON"))
    }

    /// Resets the connection, so that the gateway notices at the next write.
    pub fn reset(self) {
        if let MaybeTlsStream::Plain(stream) = self.socket.get_ref() {
            let lingering = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
            lingering.expect("a socket can be reset");
        }
    }

    /// Drops the connection without a close frame.
    pub fn cut(self) {
        drop(self);
    }
}
