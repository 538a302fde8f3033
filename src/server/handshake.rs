//! The WebSocket handshake: checks the request, takes the connection's places, and serves the connection after the
//! upgrade.

mod headers;

use super::admission::Caller;
use super::entrance::{Admitted, Entrance};
use super::respond::Answer;
use crate::protocol::format::{Encoding, Format};
use crate::socket;
use crate::stream::ClientStream;
use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use headers::{Fault, Subprotocols};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tungstenite::handshake::server::create_response_with_body;

pub const WEBSOCKET: &str = "/connection/websocket";

pub struct Handshakes {
    entrance: Arc<Entrance>,
}

impl Handshakes {
    pub fn new(entrance: Arc<Entrance>) -> Self {
        Self { entrance }
    }

    pub fn answer(&self, mut request: Request<Incoming>, caller: Arc<Caller>) -> Result<Answer, Box<Answer>> {
        self.entrance.check_intake()?;
        let (subprotocol, encoding) = self.check(&request)?;
        let format = match encoding {
            Encoding::Json => Format::WebSocketJson,
            Encoding::Protobuf => Format::WebSocketProtobuf,
        };
        let admitted = self.entrance.admit(request.headers(), caller)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let mut response =
            create_response_with_body(&Request::from_parts(parts, ()), Full::default).map_err(|bad| {
                Box::new(self.entrance.refuse("bad_handshake", StatusCode::BAD_REQUEST, &bad.to_string()))
            })?;
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let entrance = Arc::clone(&self.entrance);
        self.entrance.spawn(upgrade.then(move |upgraded| serve(&entrance, upgraded, format, admitted)));
        Ok(response)
    }

    /// Checks headers, subprotocols and origin. Returns the subprotocol to confirm, and the encoding.
    fn check(&self, request: &Request<Incoming>) -> Result<(Option<&'static str>, Encoding), Box<Answer>> {
        if let Some(Fault { reason, status, message }) = headers::fault(request.headers()) {
            return Err(Box::new(headers::invite(self.entrance.refuse(reason, status, message))));
        }
        let chosen = match headers::subprotocols(request.headers()) {
            Subprotocols::None => (None, headers::encoding(request.uri().query())),
            Subprotocols::Ours(subprotocol, encoding) => (Some(subprotocol), encoding),
            Subprotocols::OnlyOthers => {
                let message = "request centrifuge-json, centrifuge-protobuf, or no subprotocol";
                return Err(Box::new(self.entrance.refuse(
                    "unsupported_subprotocol",
                    StatusCode::BAD_REQUEST,
                    message,
                )));
            }
        };
        self.entrance.check_origin(request.headers())?;
        Ok(chosen)
    }
}

/// `None` if the client did not wait for the answer.
fn serve(
    entrance: &Entrance,
    upgraded: hyper::Result<Upgraded>,
    format: Format,
    admitted: Admitted,
) -> OptionFuture<impl Future<Output = ()> + Send + use<>> {
    // Only the stream is needed from here on; hyper's buffer would stay for the connection's life.
    let parts = upgraded.ok().and_then(|it| it.downcast::<TokioIo<ClientStream>>().ok());
    let serving = parts.map(|parts| {
        let connection = entrance.connect(parts.io.into_inner(), format, admitted, None);
        socket::serve_websocket(connection, parts.read_buf)
    });
    serving.into()
}
