//! A small client of our own: says what the test tells it to, right or wrong, and keeps what arrives.

use super::DEADLINE;
use super::gateway::Gateway;
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
    /// Pushes that arrived while something else was waited for.
    pushes: VecDeque<Value>,
    next_id: u32,
    /// The gateway's pings so far, all answered.
    pub pings: u32,
}

/// How a handshake was answered that did not succeed.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub status: u16,
    pub retry_after: bool,
}

/// A position in a channel, as a subscribe reply gives it.
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
    /// A WebSocket that has said nothing yet.
    pub async fn open(url: &str) -> Self {
        Self::try_open(url).await.expect("the handshake succeeds")
    }

    /// As `open`, where the gateway may be away or refuse.
    pub async fn try_open(url: &str) -> Option<Self> {
        let (socket, _) = connect_async(url).await.ok()?;
        Some(Self { socket, pushes: VecDeque::new(), next_id: 1, pings: 0 })
    }

    /// One that the network brings its bytes slowly: as soon as it stops reading, the gateway feels it.
    pub async fn open_narrow(gateway: &Gateway) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(([127, 0, 0, 1], gateway.port).into()).await.expect("the gateway accepts");
        let stream = MaybeTlsStream::Plain(stream);
        let (socket, _) = client_async(gateway.websocket(), stream).await.expect("the handshake succeeds");
        Self { socket, pushes: VecDeque::new(), next_id: 1, pings: 0 }
    }

    /// From this address of the machine's own, with these headers; how it was refused otherwise.
    pub async fn open_from(gateway: &Gateway, from: Ipv4Addr, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        Self::open_at(&gateway.websocket(), from, headers).await
    }

    /// As [`Client::open_from`], to a URL of this machine with a port.
    pub async fn open_at(url: &str, from: Ipv4Addr, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let mut request = url.into_client_request().expect("a URL");
        let port = request.uri().port_u16().expect("a port");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let stream = super::connect_from(from, port).await.expect("the server accepts");
        match client_async(request, MaybeTlsStream::Plain(stream)).await {
            Ok((socket, _)) => Ok(Self { socket, pushes: VecDeque::new(), next_id: 1, pings: 0 }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response.headers().contains_key("retry-after"),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connected as the token's user.
    pub async fn connect(gateway: &Gateway, token: &str) -> Self {
        let mut client = Self::open(&gateway.websocket()).await;
        client.log_in(token).await;
        client
    }

    /// As the token's user; returns the client's id.
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

    /// The reply to the command with this id.
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

    /// Subscribes again from where it was; returns the result.
    pub async fn recover(&mut self, channel: &str, place: &Place) -> Value {
        let Place { offset, epoch } = place;
        let request = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
        self.call("subscribe", request).await["subscribe"].take()
    }

    /// Where a channel stands that this client is subscribed to.
    pub async fn history_position(&mut self, channel: &str) -> Place {
        Place::of(&self.call("history", json!({"channel": channel})).await["history"])
    }

    /// The next publication of a channel.
    pub async fn publication(&mut self) -> Value {
        loop {
            let mut push = self.push().await;
            if push["push"]["pub"].is_object() {
                return push["push"]["pub"].take();
            }
        }
    }

    /// The next frame of text that is no ping, as it came; how the gateway closed, at the end.
    pub async fn text(&mut self) -> Result<Utf8Bytes, Option<CloseFrame>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) if text.as_str() == "{}" => {
                    self.pings += 1;
                    self.send("{}").await;
                }
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next publication that is a message: others, such as the room's memberships, may still be under way when
    /// a test begins.
    pub async fn message_publication(&mut self) -> Value {
        loop {
            let publication = self.publication().await;
            if publication["data"]["collection"] == "messages" {
                return publication;
            }
        }
    }

    /// The next publication, other than changes of these collections.
    pub async fn publication_but_of(&mut self, collections: &[&str]) -> Value {
        loop {
            let publication = self.publication().await;
            if !publication["data"]["collection"].as_str().is_some_and(|name| collections.contains(&name)) {
                return publication;
            }
        }
    }

    /// The next publication that a member has made.
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

    /// How the gateway ends a subscription.
    pub async fn unsubscribed(&mut self) -> Value {
        loop {
            let mut push = self.push().await;
            if push["push"]["unsubscribe"].is_object() {
                return push["push"]["unsubscribe"].take();
            }
        }
    }

    /// A push that arrived while something else was waited for.
    pub fn waiting(&mut self) -> Option<Value> {
        self.pushes.pop_front()
    }

    pub async fn push(&mut self) -> Value {
        match self.pushes.pop_front() {
            Some(push) => push,
            None => self.frame().await.unwrap_or_else(|close| panic!("closed: {close:?}")),
        }
    }

    /// How the gateway ends the connection; frames before that are dropped.
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
        // Sending may fail once the gateway has closed: how it did is what the test looks at.
        let _ = self.socket.send(message).await;
    }

    /// The next frame of text as JSON, pings answered; an error with the close frame at the end.
    async fn frame(&mut self) -> Result<Value, Option<CloseFrame>> {
        let text = timeout(DEADLINE, self.text()).await.expect("something arrives in time")?;
        Ok(serde_json::from_str(&text).expect("a frame is JSON"))
    }

    /// Vanishes so that whoever still writes to it notices at once.
    pub fn reset(self) {
        if let MaybeTlsStream::Plain(stream) = self.socket.get_ref() {
            let lingering = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
            lingering.expect("a socket can be reset");
        }
    }

    /// Vanishes without a word.
    pub fn cut(self) {
        drop(self);
    }
}
