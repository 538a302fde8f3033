//! The public listener: routes requests to the WebSocket handshake, the hooks' intake and the server API.

use super::admission::Caller;
use super::api::Api;
use super::api::methods::{Method as ApiMethod, PREFIX};
use super::handshake::{Handshakes, WEBSOCKET};
use super::hooks::{HOOKS, Hooks};
use super::respond::{Answer, Refused, error};
use crate::config::BasePath;
use crate::limits::lines::Lines;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Maximum length of a request's path and query, in bytes.
const URI_MAX: usize = 2048;

/// Log lines about refused requests per [`REFUSALS_PERIOD`]: enough to find a wrong setting.
const REFUSALS: u32 = 10;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

pub struct Public {
    base_path: BasePath,
    handshakes: Arc<Handshakes>,
    hooks: Hooks,
    api: Api,
    refusals: Lines,
}

impl Public {
    pub fn new(base_path: BasePath, handshakes: Handshakes, hooks: Hooks, api: Api) -> Self {
        let refusals = Lines::new("refused requests", REFUSALS, REFUSALS_PERIOD);
        Self { base_path, handshakes: Arc::new(handshakes), hooks, api, refusals }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Arc<Caller>) -> Answer {
        let path = route(&self.base_path, request.uri().path());
        let answer = match (request.method(), path) {
            _ if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > URI_MAX) => Ok(error(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                &format!("path and query may have {URI_MAX} bytes at most"),
            )),
            (&Method::GET, WEBSOCKET) => self.handshakes.answer(request, Arc::clone(&caller)),
            (&Method::POST, HOOKS) => self.hooks.answer(request).await,
            (&Method::POST, path) if let Some(method) = ApiMethod::of(path) => self.api.answer(method, request).await,
            (_, path) if matches!(path, WEBSOCKET | HOOKS) || ApiMethod::of(path).is_some() => Ok(error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "use GET for the WebSocket and POST for all else",
            )),
            _ => Ok(error(
                StatusCode::NOT_FOUND,
                "not_found",
                &format!(
                    "there is {base}{WEBSOCKET} for clients, {base}{HOOKS} for PocketBase's hooks, {base}{PREFIX}… for back ends",
                    base = self.base_path.as_str(),
                ),
            )),
        };
        let mut answer = answer.unwrap_or_else(|refused| *refused);
        if let Some(Refused { reason, message }) = answer.extensions_mut().remove()
            && self.refusals.passes()
        {
            tracing::warn!(peer = %caller.peer, reason, cause = message, "a request was refused");
        }
        if answer.status().is_client_error() || answer.status().is_server_error() {
            // A refused caller starts again with a new connection, which is counted.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// The path after the base path, which selects the handler; empty if the path does not begin with the base path. A
/// slash at the end of the clients' path is ignored. Private paths have a single spelling, so that a proxy that blocks
/// this spelling blocks the path.
fn route<'a>(base: &BasePath, path: &'a str) -> &'a str {
    let path = base.strip(path).unwrap_or_default();
    path.strip_suffix('/').filter(|path| *path == WEBSOCKET).unwrap_or(path)
}
