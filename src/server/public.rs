//! The public listener: routes requests to the WebSocket handshake, the streams, the hooks' intake and the server API.

use super::admission::Caller;
use super::api::Api;
use super::api::methods::{Method as ApiMethod, PREFIX};
use super::cors;
use super::emulation::{EMULATION, Emulation};
use super::entrance::Entrance;
use super::forwarded;
use super::handshake::{Handshakes, WEBSOCKET};
use super::hooks::{HOOKS, Hooks};
use super::respond::{Answer, Outcome, Refused, error};
use super::streams::{HTTP_STREAM, SSE, Streams};
use crate::config::BasePath;
use crate::log_lines::Lines;
use crate::refusals::{Code, Refusal};
use crate::session::Services;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Maximum length of a request's path and query, in bytes.
const URI_MAX: usize = 2048;
/// The same for server-sent events, whose query contains a token.
const SSE_URI_MAX: usize = 8192;

/// Log lines about refused requests per [`REFUSALS_PERIOD`]: enough to find a wrong setting.
const REFUSALS: u32 = 10;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

pub struct Public {
    services: Arc<Services>,
    entrance: Arc<Entrance>,
    handshakes: Handshakes,
    streams: Streams,
    emulation: Emulation,
    hooks: Hooks,
    api: Api,
    refusals: Lines,
}

impl Public {
    pub fn new(services: Arc<Services>, entrance: Entrance, hooks: Hooks, api: Api) -> Self {
        let entrance = Arc::new(entrance);
        Self {
            services,
            handshakes: Handshakes::new(Arc::clone(&entrance)),
            streams: Streams::new(Arc::clone(&entrance)),
            emulation: Emulation::new(Arc::clone(&entrance)),
            entrance,
            hooks,
            api,
            refusals: Lines::new("refused requests", REFUSALS, REFUSALS_PERIOD),
        }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Arc<Caller>) -> Outcome {
        let uri = request.uri().clone();
        let path = route(&self.services.config.base_path, uri.path());
        let action = match path {
            WEBSOCKET | HTTP_STREAM | SSE => "handshake",
            EMULATION => "emulation",
            HOOKS => "hooks",
            _ => "api",
        };
        let address = self.address(&request, &caller);
        // Pages of allowed origins may read the answers about streams, refusals included.
        let readable = methods(path).is_some() && self.entrance.is_allowed_origin(request.headers());
        let origin = if readable { cors::origin(request.headers()) } else { None };
        let mut answer = match self.handle(path, request, &caller).await {
            Ok(Outcome::TakeOver(take_over)) => return Outcome::TakeOver(take_over),
            Ok(Outcome::Answer(answer)) => answer,
            Err(refused) => *refused,
        };
        if methods(path).is_some() {
            cors::allow(answer.headers_mut(), origin);
        }
        if let Some(Refused { reason, message }) = answer.extensions_mut().remove() {
            let (code, address) = (Code::Word(reason), Some(address));
            self.services.refusals.note(&Refusal { action, channel: None, user: "", address, code, cause: &message });
            if self.refusals.passes() {
                tracing::warn!(peer = %caller.peer, reason, cause = message, "a request was refused");
            }
        }
        if answer.status().is_client_error() || answer.status().is_server_error() {
            // A refused caller starts again with a new connection, which is counted.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Outcome::Answer(answer)
    }

    async fn handle(
        &self,
        path: &str,
        request: Request<Incoming>,
        caller: &Arc<Caller>,
    ) -> Result<Outcome, Box<Answer>> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let max = if path == SSE { SSE_URI_MAX } else { URI_MAX };
        let answer = match (request.method(), path) {
            _ if target > max => {
                let message = format!("path and query may have {max} bytes at most");
                error(StatusCode::URI_TOO_LONG, "uri_too_long", &message)
            }
            (&Method::GET, WEBSOCKET) => self.handshakes.answer(request, Arc::clone(caller))?,
            (&Method::POST, HTTP_STREAM) | (&Method::GET | &Method::POST, SSE) => {
                return self.streams.answer(path == SSE, request, Arc::clone(caller)).await;
            }
            (&Method::POST, EMULATION) => self.emulation.answer(request).await?,
            (&Method::OPTIONS, path) if let Some(methods) = methods(path) => {
                self.entrance.check_origin(request.headers())?;
                cors::preflight(methods)
            }
            (&Method::POST, HOOKS) => self.hooks.answer(request).await?,
            (&Method::POST, path) if let Some(method) = ApiMethod::of(path) => self.api.answer(method, request).await?,
            (_, path) if is_known(path) => error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "use GET for the WebSocket, GET or POST for server-sent events, and POST for all else",
            ),
            _ => error(
                StatusCode::NOT_FOUND,
                "not_found",
                &format!(
                    "there is {base}{WEBSOCKET} for clients ({base}{HTTP_STREAM}, {base}{SSE} and {base}{EMULATION} where                      WebSockets are blocked), {base}{HOOKS} for PocketBase's hooks, {base}{PREFIX}… for back ends",
                    base = self.services.config.base_path.as_str(),
                ),
            ),
        };
        Ok(answer.into())
    }

    /// The client's address; behind a trusted proxy, from the proxy's header.
    fn address(&self, request: &Request<Incoming>, caller: &Caller) -> IpAddr {
        if caller.is_trusted_proxy {
            forwarded::client(request.headers(), caller.peer, &self.services.config.trusted_proxies)
        } else {
            caller.peer
        }
    }
}

/// Methods of the paths for streams, which pages of other origins may call; `None` for other paths.
fn methods(path: &str) -> Option<&'static str> {
    match path {
        HTTP_STREAM | EMULATION => Some("POST, OPTIONS"),
        SSE => Some("GET, POST, OPTIONS"),
        _ => None,
    }
}

fn is_known(path: &str) -> bool {
    matches!(path, WEBSOCKET | HOOKS) || methods(path).is_some() || ApiMethod::of(path).is_some()
}

/// The path after the base path, which selects the handler; empty if the path does not begin with the base path. A
/// slash at the end of the clients' paths is ignored. Private paths have a single spelling, so that a proxy that blocks
/// this spelling blocks the path.
fn route<'a>(base: &BasePath, path: &'a str) -> &'a str {
    let path = base.strip(path).unwrap_or_default();
    path.strip_suffix('/').filter(|path| *path == WEBSOCKET || methods(path).is_some()).unwrap_or(path)
}
