//! Files in PEM format: certificates and private keys, read once, with the configuration.

use super::value::{Value, quote};
use super::{Config, ConfigError};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

/// Maximum size of a PEM file, in bytes; a system's list of authorities takes a quarter of the limit.
const FILE_MAX: u64 = 1024 * 1024;

/// Certificate authorities trusted to sign a server's certificate.
#[derive(Clone)]
pub struct Authorities {
    path: String,
    roots: Arc<RootCertStore>,
}

/// A certificate with the chain of intermediate authorities.
#[derive(Clone)]
pub struct Certificates {
    path: String,
    chain: Vec<CertificateDer<'static>>,
}

/// The private key of a certificate.
#[derive(Clone)]
pub struct PrivateKey {
    path: String,
    key: Arc<PrivateKeyDer<'static>>,
}

/// A client certificate with the private key.
#[derive(Clone, Copy)]
pub struct ClientCertificate<'a> {
    pub certificates: &'a Certificates,
    pub key: &'a PrivateKey,
}

impl Authorities {
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }
}

impl Certificates {
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl PrivateKey {
    pub fn clone_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl ClientCertificate<'_> {
    /// Fails for a key of another certificate or of an unsupported kind.
    fn check(&self) -> Result<(), String> {
        let chain = self.certificates.chain.clone();
        match CertifiedKey::from_der(chain, self.key.clone_key(), &aws_lc_rs::default_provider()) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err("is not the key of the certificate in `redis_cert_file`".into())
            }
            Err(error) => Err(format!("cannot be used with the certificate in `redis_cert_file`: {error}")),
        }
    }
}

impl Config {
    /// Checks the certificate settings. An unused file is an error: the operator could take the link for encrypted.
    pub(super) fn check_tls(&self) -> Result<(), ConfigError> {
        let bad = |name, why: &str| Err(ConfigError::bad("configuration", name, why));
        if self.pocketbase_ca_file.is_some() && !self.pocketbase_url.is_https() {
            return bad("pocketbase_ca_file", "is used for https:// only: set `pocketbase_url` to an https:// URL");
        }
        let is_tls = self.redis_url.as_ref().is_some_and(|url| url.tls);
        for (name, is_set) in [
            ("redis_ca_file", self.redis_ca_file.is_some()),
            ("redis_cert_file", self.redis_cert_file.is_some()),
            ("redis_key_file", self.redis_key_file.is_some()),
        ] {
            if is_set && !is_tls {
                return bad(name, "is used for TLS only: `redis_url` has to begin with rediss");
            }
        }
        match (self.redis_identity(), &self.redis_cert_file, &self.redis_key_file) {
            (Some(identity), ..) => {
                identity.check().map_err(|why| ConfigError::bad("configuration", "redis_key_file", &why))
            }
            (_, Some(_), _) => bad("redis_key_file", "is missing: the certificate in `redis_cert_file` needs a key"),
            (_, _, Some(_)) => bad("redis_cert_file", "is missing: the key in `redis_key_file` needs a certificate"),
            _ => Ok(()),
        }
    }

    /// The client certificate for Redis.
    pub fn redis_identity(&self) -> Option<ClientCertificate<'_>> {
        let (certificates, key) = self.redis_cert_file.as_ref().zip(self.redis_key_file.as_ref())?;
        Some(ClientCertificate { certificates, key })
    }
}

impl Value for Option<Authorities> {
    fn parse(path: &str) -> Result<Self, String> {
        let Some(pem) = read(path)? else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, &pem)? {
            roots
                .add(certificate)
                .map_err(|error| format!("{path} has a certificate that is not an authority's: {error}"))?;
        }
        Ok(Some(Authorities { path: path.to_owned(), roots: Arc::new(roots) }))
    }
    fn show(&self) -> String {
        quote(self.as_ref().map_or("", |file| &file.path))
    }
}

impl Value for Option<Certificates> {
    fn parse(path: &str) -> Result<Self, String> {
        let Some(pem) = read(path)? else { return Ok(None) };
        Ok(Some(Certificates { chain: certificates(path, &pem)?, path: path.to_owned() }))
    }
    fn show(&self) -> String {
        quote(self.as_ref().map_or("", |file| &file.path))
    }
}

impl Value for Option<PrivateKey> {
    fn parse(path: &str) -> Result<Self, String> {
        let Some(pem) = read(path)? else { return Ok(None) };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            format!("{path} has no unencrypted private key, which begins with -----BEGIN PRIVATE KEY-----")
        })?;
        Ok(Some(PrivateKey { path: path.to_owned(), key: Arc::new(key) }))
    }
    fn show(&self) -> String {
        quote(self.as_ref().map_or("", |file| &file.path))
    }
}

fn certificates(path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{path} has no certificate, which begins with -----BEGIN CERTIFICATE----- (PEM)")),
        Err(error) => Err(format!("{path} is not a PEM file: {error}")),
    }
}

/// Reads a PEM file; `None` for an empty path. Errors quote no content, since the file may hold a key.
fn read(path: &str) -> Result<Option<Vec<u8>>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let failed = |error| format!("cannot read {path}: {error}; name a PEM file that this process may read");
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
    if pem.len() as u64 > FILE_MAX {
        return Err(format!("{path} has more than {FILE_MAX} bytes"));
    }
    Ok(Some(pem))
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}
