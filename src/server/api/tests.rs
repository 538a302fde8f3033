//! Tests of the server API: over HTTP in this process, down to the memory broker, the hub and revocation.

use super::methods::Methods;
use super::*;
use crate::config::Config;
use crate::control::Control;
use crate::hub::Watcher;
use crate::outbox::OutboxState;
use crate::pocketbase::Verdict;
use crate::protocol::codes;
use crate::revocation::Revocation;
use crate::shutdown::Shutdown;
use crate::signature::{SIGNATURE, Signer, TIMESTAMP};
use crate::stage::{ROOM, Stage, subscribe, until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Weak;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The API of a gateway, with a signer of a back end.
struct BackEnd {
    stage: Stage,
    api: Arc<Api>,
    shutdown: Arc<Shutdown>,
    signer: Signer,
    _control: Arc<Control>,
}

impl BackEnd {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let stage = Stage::with(change).await;
        let services = &stage.services;
        let (config, metrics) = (&services.config, services.metrics.clone());
        let shutdown = Arc::new(Shutdown::new(CancellationToken::new(), Duration::ZERO));
        let signed = SignedRequests::new(config, metrics.clone(), TaskTracker::new(), Arc::clone(&shutdown));
        let methods = Methods {
            broker: Arc::clone(&services.broker),
            statuses: Arc::clone(&services.statuses),
            metrics: metrics.clone(),
            timeout: config.command_timeout,
        };
        let revocation = Arc::new(Revocation {
            hub: Arc::clone(&services.hub),
            auth: Arc::clone(&services.auth),
            access: Arc::clone(&services.access),
            connections: Arc::clone(&services.connections),
            metrics,
        });
        let control = Arc::new(Control {
            revocation,
            updates: Arc::clone(&services.updates),
            connections: Arc::clone(&services.connections),
            changes: Arc::clone(&stage.changes),
        });
        let watcher: Weak<Control> = Arc::downgrade(&control);
        services.hub.watch(crate::channel::CONTROL, watcher as Weak<dyn Watcher>);
        services.hub.watched().await.unwrap();
        let signer = Signer::new(&config.secret);
        Self { api: Arc::new(Api { methods, signed: Arc::new(signed) }), stage, shutdown, signer, _control: control }
    }

    fn signed(&self, method: &str, body: &str) -> Request<Full<Bytes>> {
        let target = format!("/api/{method}");
        let (timestamp, signature) = self.signer.sign(SystemTime::now(), "POST", &target, body.as_bytes());
        let request = Request::post(target).header("host", "gateway");
        let request = request.header(TIMESTAMP, timestamp).header(SIGNATURE, signature);
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
    }

    /// Sends a request over a connection in memory.
    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let api = Arc::clone(&self.api);
        let answer = service_fn(move |request: Request<Incoming>| {
            let api = Arc::clone(&api);
            async move {
                let method = Method::of(request.uri().path()).unwrap();
                let answer = api.answer(method, request).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|refused| *refused))
            }
        });
        let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(there), answer);
        let server = tokio::spawn(server);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        server.abort();
        connection.abort();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn call(&self, method: &str, body: &Value) -> (u16, Value) {
        self.send(self.signed(method, &body.to_string())).await
    }

    fn counted(&self, method: &str) -> u64 {
        self.stage.services.metrics.api_requests.with_label_values(&[method]).get()
    }
}

#[tokio::test(start_paused = true)]
async fn only_signed_requests_are_executed() {
    let back_end = BackEnd::start().await;
    let body = json!({"channel": ROOM, "data": {}}).to_string();
    let mut unsigned = back_end.signed("publish", &body);
    unsigned.headers_mut().remove(SIGNATURE);
    let mut of_another_method = back_end.signed("publish", &body);
    *of_another_method.uri_mut() = "/api/presence".parse().unwrap();
    let mut changed = back_end.signed("publish", &body);
    *changed.body_mut() = Full::new(Bytes::from(body.replace("{}", "[]")));
    for request in [unsigned, of_another_method, changed] {
        assert_eq!(back_end.send(request).await.0, 401);
    }
    assert_eq!((back_end.counted("publish"), back_end.counted("presence")), (0, 0));
}

/// A signed request that was overheard is of no use, except for reads.
#[tokio::test(start_paused = true)]
async fn a_request_counts_once() {
    let back_end = BackEnd::start().await;
    let bodies = [("publish", json!({"channel": ROOM, "data": {}})), ("presence", json!({"channel": ROOM}))];
    for (method, body) in bodies {
        let first = back_end.signed(method, &body.to_string());
        let second = first.clone();
        let expected = if method == "publish" { [200, 409] } else { [200, 200] };
        assert_eq!([back_end.send(first).await.0, back_end.send(second).await.0], expected, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_and_a_stopping_gateway_are_refused_before_the_signature() {
    let back_end = BackEnd::start().await;
    let (status, answer) = back_end.call("publish", &json!({"channel": ROOM, "data": "x".repeat(BODY_MAX)})).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")));
    back_end.shutdown.close_intake();
    let (status, answer) = back_end.call("publish", &json!({"channel": ROOM, "data": {}})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("draining")));
}

#[tokio::test(start_paused = true)]
async fn a_publication_of_a_back_end_reaches_subscribers_as_the_server_s() {
    let back_end = BackEnd::start().await;
    let client = back_end.stage.subscribed(1, "ann").await;
    assert_eq!(back_end.call("publish", &json!({"channel": ROOM, "data": {"n": 1}})).await, (200, json!({})));
    let push = client.received().remove(0);
    assert_eq!(push["push"]["pub"]["info"], json!({"user": "$server", "client": "$server"}), "{push}");
    assert_eq!(push["push"]["pub"]["data"], json!({"n": 1}));
    assert_eq!(back_end.counted("publish"), 1);
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_with_the_reason_and_not_counted_as_executed() {
    let back_end = BackEnd::start().await;
    let many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
    for (method, body, part) in [
        ("publish", json!({"channel": ROOM}), "missing field `data`"),
        ("publish", json!({"channel": ROOM, "data": {}, "more": 1}), "unknown field `more`"),
        ("publish", json!({"channel": "a b:c", "data": {}}), "not a valid channel name"),
        ("publish", json!({"channel": "status:ann", "data": {}}), "no publications"),
        ("publish", json!({"channel": "$access", "data": {}}), "not a valid channel name"),
        ("presence", json!({"channel": "room-updates"}), "no presence"),
        ("unsubscribe", json!({"user": "ann", "channel": ""}), "not a valid channel name"),
        ("statuses", json!({"users": many}), "more than 500"),
    ] {
        let (status, answer) = back_end.call(method, &body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(part), "{method} {body}: {status} {message}");
        assert_eq!(back_end.counted(method), 0);
    }
    // Deeper than clients' parsers go.
    let deep = format!(r#"{{"channel":"{ROOM}","data":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(back_end.send(back_end.signed("publish", &deep)).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn presence_and_statuses_are_read() {
    let back_end = BackEnd::with(|config| config.presence_max = 1).await;
    let ann = back_end.stage.subscribed(1, "ann").await;
    let client = ann.session.authenticated().unwrap().client.to_string();
    let (_, answer) = back_end.call("presence", &json!({"channel": ROOM})).await;
    assert_eq!(answer, json!({"clients": [{"user": "ann", "client": client}]}));
    let _bob = back_end.stage.subscribed(2, "bob").await;
    let (status, answer) = back_end.call("presence", &json!({"channel": ROOM})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("too_many_clients")));
    let (_, answer) = back_end.call("presence_stats", &json!({"channel": ROOM})).await;
    assert_eq!(answer, json!({"clients": 2, "users": 2}));
    let (_, answer) = back_end.call("statuses", &json!({"users": ["ann", "eve"]})).await;
    assert_eq!(answer["statuses"]["ann"]["status"], "online", "{answer}");
    assert_ne!(answer["statuses"]["eve"]["status"], "online", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_the_connections_of_one_user() {
    let back_end = BackEnd::start().await;
    for (reconnect, reason) in [(false, codes::DISCONNECTED), (true, codes::RECONNECT)] {
        let (ann, bob) = (back_end.stage.connected(1, "ann").await, back_end.stage.connected(2, "bob").await);
        let order = json!({"user": "ann", "reconnect": reconnect});
        assert_eq!(back_end.call("disconnect", &order).await.0, 200);
        until("ann is told", async || ann.outbox.state() == OutboxState::Over(Some(reason))).await;
        assert_eq!(bob.outbox.state(), OutboxState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_ends_one_channel_of_one_user() {
    let back_end = BackEnd::start().await;
    back_end.stage.answers.set("ann", "room:b", Verdict::Allowed);
    let (mut ann, bob) = (back_end.stage.subscribed(1, "ann").await, back_end.stage.subscribed(2, "bob").await);
    assert_eq!(ann.code(subscribe(2, "room:b")).await, 0);
    assert_eq!(back_end.call("unsubscribe", &json!({"user": "ann", "channel": ROOM})).await.0, 200);
    let channels = || ann.session.authenticated().unwrap().channels().to_vec();
    until("ann has left one channel", async || channels() == [Arc::<str>::from("room:b")]).await;
    assert_eq!(ann.received()[0]["push"]["unsubscribe"]["code"], 2105);
    assert_eq!(bob.session.authenticated().unwrap().channels().len(), 1);
}
