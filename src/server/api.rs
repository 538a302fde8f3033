//! The server API over HTTP: checks a signed request of a back end, and executes its [method](methods::Method).

pub mod methods;

use super::body::discard;
use super::respond::{Answer, STOPPED_PAUSE, json, retry_after};
use super::signed::SignedRequests;
use crate::signature::{MAX_SKEW, VerifiedSignature};
use hyper::body::{Body, Incoming};
use hyper::{Request, StatusCode};
use methods::{BODY_MAX, Method, Methods};
use std::sync::Arc;

pub struct Api {
    pub methods: Methods,
    pub signed: Arc<SignedRequests>,
}

impl Api {
    pub async fn answer(&self, method: Method, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let _under_way = self.signed.begin()?;
        let (parts, body) = request.into_parts();
        if body.size_hint().upper().is_none_or(|length| length > BODY_MAX as u64) {
            discard(body).await;
            let message = format!("a request needs a content-length of {BODY_MAX} bytes at most");
            return Ok(self.signed.refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message));
        }
        let body = self.signed.read(body).await?;
        let verified = self.signed.verify(&parts, &body)?;
        if !method.is_read_only() {
            self.claim(&verified).await?;
        }
        match self.methods.execute(method, &body).await {
            Ok(answer) => Ok(json(StatusCode::OK, &answer)),
            Err(error) => {
                let (status, reason, message) = error.parts();
                Ok(self.signed.refuse(status, reason, message))
            }
        }
    }

    /// Checks that no gateway has taken the back end's request before.
    async fn claim(&self, verified: &VerifiedSignature) -> Result<(), Box<Answer>> {
        let name = format!("{:032x}", verified.signature);
        // For as long as the timestamp is valid, wherever it lies within the allowed skew.
        match self.methods.broker.claim(&name, 2 * MAX_SKEW).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.signed.replayed()),
            Err(error) => {
                self.methods.metrics.broker_errors.with_label_values(&["api"]).inc();
                tracing::debug!(%error, "the broker did not answer the replay check; the request is refused");
                let message = "the broker does not answer; sign the request anew and send it again";
                let answer = self.signed.refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
                Err(Box::new(retry_after(answer, STOPPED_PAUSE)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
