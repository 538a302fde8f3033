//! An nginx as a proxy in front of a test's server.

use super::process::{Process, program};
use super::until;
use std::process::Command;
use tempfile::TempDir;
use tokio::net::TcpStream;

pub struct Nginx {
    _process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// Starts nginx with `server` blocks; returns when all ports accept connections.
    ///
    /// # Panics
    /// Without nginx.
    pub async fn start(servers: &str, ports: &[u16]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\n    access_log off;\n{temporary}{servers}\n}}\n"
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).expect("it can be written");
        let mut command = Command::new(program("nginx", "usr/sbin/nginx"));
        command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(&path);
        let mut process = Process::start("nginx", &mut command);
        for port in ports {
            until("nginx", async || {
                assert!(!process.has_ended(), "nginx ended:\n{}", process.log());
                TcpStream::connect(("127.0.0.1", *port)).await.ok()
            })
            .await;
        }
        Self { _process: process, _directory: directory }
    }
}

/// A `server` block that forwards all requests and WebSockets with the client's address. `listen`: as in nginx, for example
/// `127.0.0.1:80`; `to`: as for `proxy_pass`, without the scheme.
pub fn server(listen: &str, more: &str, to: &str) -> String {
    format!(
        "    server {{
        listen {listen};
        {more}
        location / {{
            proxy_pass http://{to};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
        }}
    }}
"
    )
}
