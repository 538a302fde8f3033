//! Certificates for tests, made by `openssl`: an authority and signed certificates.

use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = ${ENV::NAMES}
";

pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// `ca`, `other-ca`; signed by `ca`: `server` for 127.0.0.1 and localhost, `elsewhere` for a foreign host, `client`.
    ///
    /// # Panics
    /// Without `openssl` on `PATH`.
    pub fn make() -> Self {
        let it = Self { directory: TempDir::new().expect("a temporary directory") };
        std::fs::write(it.path("config"), CONFIG).expect("it can be written");
        it.request("ca", "authority", "DNS:ca", &[]);
        it.request("other-ca", "authority", "DNS:ca", &[]);
        let (certificate, key) = (it.path("ca.pem"), it.path("ca.key"));
        let signed = ["-CA", &certificate, "-CAkey", &key];
        it.request("server", "leaf", "IP:127.0.0.1,DNS:localhost", &signed);
        it.request("elsewhere", "leaf", "DNS:elsewhere.example", &signed);
        it.request("client", "leaf", "DNS:gateway.example", &signed);
        it
    }

    /// Path of a file, for example `ca.pem` or `server.key`.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Arguments of `redis-server` for a second port with TLS, without client certificates.
    pub fn redis_arguments(&self, port: u16) -> Vec<String> {
        self.redis_arguments_with("server", port)
    }

    /// As `redis_arguments`, with the certificate of this name.
    pub fn redis_arguments_with(&self, name: &str, port: u16) -> Vec<String> {
        let [certificate, key] = [".pem", ".key"].map(|end| self.path(&format!("{name}{end}")));
        let (port, ca) = (port.to_string(), self.path("ca.pem"));
        let pairs = [
            ("--tls-port", port.as_str()),
            ("--tls-cert-file", &certificate),
            ("--tls-key-file", &key),
            ("--tls-ca-cert-file", &ca),
            ("--tls-auth-clients", "no"),
        ];
        pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
    }

    fn request(&self, name: &str, kind: &str, names: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command
            .args(["-config", &self.path("config"), "-extensions", kind, "-subj", &format!("/CN={name}")])
            .args(more);
        command.args(["-out", &self.path(&format!("{name}.pem")), "-keyout", &self.path(&format!("{name}.key"))]);
        let output = command.env("NAMES", names).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run openssl: {error}. Install it."));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
