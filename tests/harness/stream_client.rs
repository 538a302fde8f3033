//! A client of a stream: an HTTP stream in either encoding, or server-sent events. Sends later commands to /emulation.

use super::gateway::Gateway;
use super::http::{Http, Response};
use super::{DEADLINE, translation};
use bytes::Bytes;
use konvert_gateway::protocol::messages;
use prost::Message;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    HttpStream,
    HttpStreamProtobuf,
    Sse,
}

pub const TRANSPORTS: [Transport; 3] = [Transport::HttpStream, Transport::HttpStreamProtobuf, Transport::Sse];

pub struct StreamClient {
    transport: Transport,
    pub socket: TcpStream,
    /// Received bytes that are not read yet.
    buffer: Vec<u8>,
    /// Whether a proxy has split the response into chunks, and the bytes of an unfinished chunk.
    is_chunked: bool,
    chunks: Vec<u8>,
    /// The head of the response.
    pub head: String,
    pushes: VecDeque<Value>,
    next_id: u32,
    /// From the reply to `connect`.
    pub session: String,
    pub node: String,
    http: Http,
    /// URL for commands.
    pub emulation: String,
    pub answers_pings: bool,
    /// The gateway's pings so far.
    pub pings: u32,
}

impl StreamClient {
    /// Opens a stream that connects as the token's user.
    pub async fn connect(gateway: &Gateway, transport: Transport, token: &str) -> Self {
        let connect = json!({"id": 1, "connect": {"token": token}});
        let mut client = Self::open(gateway, transport, &[connect]).await;
        let reply = client.reply(1).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Opens a stream with these commands; reads the head of the response alone.
    pub async fn open(gateway: &Gateway, transport: Transport, commands: &[Value]) -> Self {
        Self::open_with(gateway.port, transport, &encode(transport, commands), TcpSocket::new_v4().expect("a socket"))
            .await
    }

    /// As [`StreamClient::connect`], through a proxy at a local port.
    pub async fn connect_through(port: u16, transport: Transport, token: &str) -> Self {
        let commands = encode(transport, &[json!({"id": 1, "connect": {"token": token}})]);
        let mut client = Self::open_with(port, transport, &commands, TcpSocket::new_v4().expect("a socket")).await;
        let reply = client.reply(1).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Opens a stream over a socket that the caller has set up.
    pub async fn open_with(port: u16, transport: Transport, commands: &[u8], socket: TcpSocket) -> Self {
        let socket = socket.connect(([127, 0, 0, 1], port).into()).await.expect("the server accepts");
        let mut client = Self {
            transport,
            socket,
            buffer: Vec::new(),
            is_chunked: false,
            chunks: Vec::new(),
            head: String::new(),
            pushes: VecDeque::new(),
            next_id: 2,
            session: String::new(),
            node: String::new(),
            http: Http::new(),
            emulation: format!("http://127.0.0.1:{port}/emulation"),
            answers_pings: true,
            pings: 0,
        };
        client.socket.write_all(&request(transport, commands)).await.expect("the request can be sent");
        client.read_head().await;
        assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
        client
    }

    async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read().await > 0, "the response ends within the head");
        };
        self.head = String::from_utf8(self.buffer.drain(..end).collect()).expect("a head is text");
        self.is_chunked = self.head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked\r\n");
        if self.is_chunked {
            self.chunks = std::mem::take(&mut self.buffer);
            self.take_chunks();
        }
        if self.transport == Transport::Sse {
            while !self.buffer.starts_with(b"\r\n") {
                assert!(self.read().await > 0, "the events begin with an empty line");
            }
            self.buffer.drain(..2);
        }
    }

    /// Reads more; 0 at the end.
    async fn read(&mut self) -> usize {
        let mut some = vec![0; 64 * 1024];
        let read = timeout(DEADLINE, self.socket.read(&mut some)).await.expect("something arrives in time");
        // A reset is an end as well.
        let size = read.unwrap_or(0);
        if self.is_chunked {
            self.chunks.extend_from_slice(&some[..size]);
            self.take_chunks();
        } else {
            self.buffer.extend_from_slice(&some[..size]);
        }
        size
    }

    /// Takes whole chunks, as a proxy writes them.
    fn take_chunks(&mut self) {
        while let Some(line) = find(&self.chunks, b"\r\n") {
            let digits = std::str::from_utf8(&self.chunks[..line]).expect("the size of a chunk");
            let size = usize::from_str_radix(digits.trim(), 16).expect("a number");
            let begin = line + 2;
            if self.chunks.len() < begin + size + 2 {
                return;
            }
            self.buffer.extend_from_slice(&self.chunks[begin..begin + size]);
            self.chunks.drain(..begin + size + 2);
        }
    }

    /// Sends commands to /emulation.
    pub async fn post(&self, commands: &[u8]) -> Response {
        self.http
            .send("POST", &self.emulation, &[self.content_type()], self.envelope(commands))
            .await
            .expect("an answer")
    }

    fn content_type(&self) -> (&'static str, &'static str) {
        let is_protobuf = self.transport == Transport::HttpStreamProtobuf;
        ("content-type", if is_protobuf { "application/octet-stream" } else { "application/json" })
    }

    /// The body of a request with commands.
    pub fn envelope(&self, commands: &[u8]) -> Vec<u8> {
        let (session, node) = (self.session.clone(), self.node.clone());
        match self.transport {
            Transport::HttpStreamProtobuf => {
                messages::EmulationRequest { session, node, data: Bytes::copy_from_slice(commands) }.encode_to_vec()
            }
            _ => {
                let data = std::str::from_utf8(commands).expect("JSON");
                json!({"session": session, "node": node, "data": data}).to_string().into()
            }
        }
    }

    pub async fn send(&self, commands: &[Value]) {
        let response = self.post(&encode(self.transport, commands)).await;
        assert_eq!(response.status, 204, "{}", response.text);
    }

    /// Sends one command and returns its reply.
    pub async fn call(&mut self, command: &str, request: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&[json!({"id": id, command: request})]).await;
        self.reply(id).await
    }

    pub async fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.call("subscribe", json!({"channel": channel})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].clone()
    }

    /// Waits for the reply to the command with this id.
    pub async fn reply(&mut self, id: u32) -> Value {
        loop {
            let message = self.message().await.expect("the stream goes on");
            if message["id"] == id {
                return message;
            }
            self.pushes.push_back(message);
        }
    }

    /// Id of the next reply.
    pub async fn next_reply(&mut self) -> u64 {
        loop {
            let message = self.message().await.expect("the stream goes on");
            match message["id"].as_u64() {
                Some(id) => return id,
                None => self.pushes.push_back(message),
            }
        }
    }

    /// The next push; `None` at the end of the stream.
    pub async fn push(&mut self) -> Option<Value> {
        match self.pushes.pop_front() {
            Some(push) => Some(push),
            None => self.message().await,
        }
    }

    /// The content of the next message of a room.
    pub async fn content(&mut self) -> String {
        loop {
            let push = self.push().await.expect("the stream goes on");
            let data = &push["push"]["pub"]["data"];
            if data["collection"] == "messages" {
                return data["record"]["content"].as_str().expect("a content").to_owned();
            }
        }
    }

    /// Code of the disconnect push and whether the response ended directly after it; earlier messages are dropped.
    pub async fn closed(&mut self) -> u64 {
        loop {
            let message = self.message().await.expect("a disconnect push before the end");
            if let Some(code) = message["push"]["disconnect"]["code"].as_u64() {
                assert_eq!(self.message().await, None, "nothing follows");
                return code;
            }
        }
    }

    /// The next message that is no ping; `None` at the end.
    pub async fn message(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.take_message() {
                if message != json!({}) {
                    if let Some(session) = message["connect"]["session"].as_str() {
                        self.session = session.to_owned();
                        self.node = message["connect"]["node"].as_str().expect("a node").to_owned();
                    }
                    return Some(message);
                }
                self.pings += 1;
                if self.answers_pings {
                    self.send(&[json!({})]).await;
                }
            } else if self.read().await == 0 {
                assert!(self.buffer.is_empty(), "the stream ends within a message");
                return None;
            }
        }
    }

    fn take_message(&mut self) -> Option<Value> {
        match self.transport {
            Transport::HttpStream => {
                let end = find(&self.buffer, b"\n")?;
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                Some(serde_json::from_slice(&line).expect("a line is JSON"))
            }
            Transport::Sse => {
                let end = find(&self.buffer, b"\n\n")?;
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let data = event.strip_prefix(b"data: ").expect("an event with data");
                Some(serde_json::from_slice(data).expect("the data is JSON"))
            }
            Transport::HttpStreamProtobuf => {
                let mut rest = &self.buffer[..];
                let length = prost::decode_length_delimiter(&mut rest).ok()?;
                let message = rest.get(..length)?;
                let reply = messages::Reply::decode(message).expect("a reply");
                let read = self.buffer.len() - rest.len() + length;
                self.buffer.drain(..read);
                Some(translation::json(&reply))
            }
        }
    }
}

/// The request that opens a stream.
pub fn request(transport: Transport, commands: &[u8]) -> Vec<u8> {
    let (path, content_type) = match transport {
        Transport::HttpStream => ("http_stream", "application/json"),
        Transport::HttpStreamProtobuf => ("http_stream", "application/octet-stream"),
        Transport::Sse => {
            let query: String = commands.iter().map(|byte| format!("%{byte:02X}")).collect();
            let head = format!(
                "GET /connection/sse?cf_connect={query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n"
            );
            return head.into_bytes();
        }
    };
    let head = format!(
        "POST /connection/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        commands.len()
    );
    [head.as_bytes(), commands].concat()
}

/// Commands in the transport's encoding.
pub fn encode(transport: Transport, commands: &[Value]) -> Vec<u8> {
    let lines = commands.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    if transport == Transport::HttpStreamProtobuf { translation::commands(&lines) } else { lines.into() }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
