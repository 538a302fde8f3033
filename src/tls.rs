//! TLS towards Redis and PocketBase: rustls, with the cryptography of aws-lc-rs. Clients get TLS from the proxy in
//! front of the gateway.

use crate::config::{Authorities, ClientCertificate};
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

/// Trusted certificate authorities and an optional client certificate. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("this system has no certificate authorities ({0}): install ca-certificates, or name a file in `{1}`")]
    NoAuthorities(String, &'static str),
    #[error("TLS cannot be set up: {0}")]
    Unusable(#[from] Error),
}

impl Tls {
    /// Trusts `authorities`, by default the system's. `setting`: the setting's name for the error.
    pub fn new(
        authorities: Option<&Authorities>,
        identity: Option<ClientCertificate<'_>>,
        setting: &'static str,
    ) -> Result<Self, TlsError> {
        let roots = match authorities {
            Some(authorities) => authorities.roots(),
            None => system_roots(setting)?,
        };
        Self::trusting(roots, identity)
    }

    /// Placeholder for a connector without TLS: every handshake fails.
    pub fn trusting_nobody() -> Result<Self, TlsError> {
        Self::trusting(Arc::new(RootCertStore::empty()), None)
    }

    fn trusting(roots: Arc<RootCertStore>, identity: Option<ClientCertificate<'_>>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            Some(ClientCertificate { certificates, key }) => {
                builder.with_client_auth_cert(certificates.chain().to_vec(), key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

fn system_roots(setting: &'static str) -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoAuthorities(why, setting));
    }
    Ok(Arc::new(roots))
}

/// Reason of a failed connection. TLS errors come with the setting to change, whose name begins with `peer`: `redis` or
/// `pocketbase`.
pub fn reason(error: &(dyn StdError + 'static), peer: &str) -> String {
    problem(error, peer).unwrap_or_else(|| error.to_string())
}

/// As [`reason`] for a TLS error at any depth of the causes, else `None`.
pub fn problem(error: &(dyn StdError + 'static), peer: &str) -> Option<String> {
    let mut cause = error;
    loop {
        if let Some(error) = tls_error(cause) {
            return Some(explain(error, peer));
        }
        cause = cause.source()?;
    }
}

/// I/O errors wrap a TLS error without naming the wrapped error as their source.
fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    match cause.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().and_then(|inner| tls_error(inner)),
        None => cause.downcast_ref::<Error>(),
    }
}

fn explain(error: &Error, peer: &str) -> String {
    let advice = match error {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. },
        ) => format!("with an authority of your own, name the authority's certificate in `{peer}_ca_file`"),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("`{peer}_url` and the certificate have to name the same host"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew the certificate, or set this machine's clock".to_owned()
        }
        Error::InvalidMessage(_) => format!("the server speaks no TLS: is the port in `{peer}_url` right?"),
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate,
        ) if peer == "redis" => {
            "Redis requires a client certificate of a trusted authority: set `redis_cert_file` and `redis_key_file`"
                .to_owned()
        }
        _ => return format!("TLS: {error}"),
    };
    format!("TLS: {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_tls_is_found_wherever_it_is_and_says_what_helps() {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let within = io::Error::new(io::ErrorKind::InvalidData, unknown());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown()));
        for error in [&unknown() as &(dyn StdError + 'static), &within, &twice] {
            let told = reason(error, "pocketbase");
            assert!(told.contains("UnknownIssuer") && told.contains("`pocketbase_ca_file`"), "{told}");
        }
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(reason(&alert, "redis").contains("`redis_cert_file`"));
        assert_eq!(reason(&io::Error::other("Connection refused"), "redis"), "Connection refused");
    }
}
