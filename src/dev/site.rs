//! The directory of a `dev` run, and the servers that use the directory.

use super::page::Page;
use super::ports::Ports;
use super::servers::{Recipe, Servers};
use super::{Options, say};
use crate::init::{App, init};
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const SEED: (&str, &str) = (
    "pb_migrations/1796083270_demo_seed.js",
    include_str!("../../deploy/demo/pocketbase/pb_migrations/1796083270_demo_seed.js"),
);
pub const SUPERUSER: &str = "admin@example.com";
/// The seed's users (id, name, e-mail, password) and room.
const USERS: [(&str, &str, &str, &str); 2] = [
    ("alicedemo000000", "Alice", "alice@example.com", "alice-demo"),
    ("bobdemo00000000", "Bob", "bob@example.com", "bob-demo"),
];
pub const ROOM: &str = "demoroom0000000";

pub struct Site {
    data: PathBuf,
    pocketbase: PathBuf,
    ports: Ports,
    host: IpAddr,
    public_url: Option<String>,
    page: Page,
    settings: Vec<String>,
    secret: String,
    pub superuser_password: String,
    /// Locked while this process lives.
    _lock: File,
}

impl Site {
    /// Locks the directory and chooses the ports.
    pub fn new(options: &Options, pocketbase: PathBuf) -> anyhow::Result<Self> {
        create_private(&options.data)?;
        let data = std::path::absolute(&options.data)?;
        let lock = File::create(data.join("lock")).with_context(|| format!("cannot write in {}", data.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another \"konvert-gateway dev\" runs in {}; stop it, or choose another directory with --data",
                data.display()
            );
        }
        let page = Page::choose(options.site.as_deref(), options.plain)?;
        let ports = Ports::choose(options.host, options.gateway_port, options.pocketbase_port)?;
        let secret = kept_secret(&data.join("gateway-secret"), crate::random::token::<32>)?;
        let superuser_password = kept_secret(&data.join("superuser-password"), crate::random::token::<10>)?;
        let (host, public_url, settings) = (options.host, options.public_url.clone(), options.settings.clone());
        Ok(Self { data, pocketbase, ports, host, public_url, page, settings, secret, superuser_password, _lock: lock })
    }

    /// Writes hooks, migrations and page, and creates PocketBase's data with the superuser and the demo's content.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let report = init(&self.data, Some(App::Chat), false)?;
        if report.kept > 0 {
            say(format_args!("edited files in {} are kept:\n{}", self.data.display(), report.text.trim_end()));
        }
        fs::write(self.data.join(SEED.0), SEED.1)?;
        let public = self.public();
        self.page.write(&public)?;
        fs::write(public.join("config.json"), serde_json::to_string_pretty(&self.page_config())?)?;
        // Applies the migrations as well.
        let mut upsert = Command::new(&self.pocketbase);
        upsert.args(self.pocketbase_folders()).args(["superuser", "upsert", SUPERUSER, &self.superuser_password]);
        let output = upsert.envs(self.environment()).stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("PocketBase could not set up {}:\n{}", self.data.display(), String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    /// Starts both servers, and returns once clients can connect.
    pub async fn start(&self, servers: &mut Servers) -> anyhow::Result<()> {
        let mut arguments = self.pocketbase_folders();
        arguments.push("serve".into());
        arguments.push(format!("--http={}", SocketAddr::new(self.host, self.ports.pocketbase)).into());
        arguments.push(flag("--publicDir", &self.public()));
        let (program, log) = (self.pocketbase.clone(), self.data.join("pocketbase.log"));
        let environment = self.environment();
        servers.start(Recipe { name: "PocketBase", program, arguments, environment, log, restarts: false })?;
        servers.wait_for("PocketBase", self.pocketbase_address(), "/api/health").await?;

        let mut arguments: Vec<OsString> = vec!["serve".into()];
        arguments.extend(self.settings.iter().map(OsString::from));
        for (setting, address) in [
            ("--listen", SocketAddr::new(self.host, self.ports.gateway).to_string()),
            ("--admin-listen", self.admin_address().to_string()),
            ("--pocketbase-url", format!("http://{}", self.pocketbase_address())),
            // A spread protects the remaining gateways, and `dev` runs a single gateway.
            ("--shutdown-spread", "0".to_owned()),
        ] {
            arguments.push(format!("{setting}={address}").into());
        }
        let program = std::env::current_exe().context("cannot find this program")?;
        let (environment, log) = (self.environment(), self.data.join("gateway.log"));
        servers.start(Recipe { name: "the gateway", program, arguments, environment, log, restarts: true })?;
        servers.wait_for("the gateway", self.admin_address(), "/readyz").await
    }

    pub fn pocketbase_url(&self) -> String {
        format!("http://{}", self.pocketbase_address())
    }

    pub fn gateway_url(&self) -> String {
        let reached = SocketAddr::new(reachable(self.host), self.ports.gateway);
        self.public_url.clone().unwrap_or_else(|| format!("http://{reached}"))
    }

    pub fn websocket_url(&self) -> String {
        // http:// to ws://, https:// to wss://.
        format!("{}/connection/websocket", self.gateway_url().replacen("http", "ws", 1))
    }

    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address())
    }

    /// The page's URL for devices in the local network, if the listeners accept connections from the network.
    pub fn network_url(&self) -> Option<String> {
        if !self.host.is_unspecified() {
            return None;
        }
        // Connecting a UDP socket sends nothing; the system chooses the local address for the network.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        let address = SocketAddr::new(socket.local_addr().ok()?.ip(), self.ports.pocketbase);
        Some(format!("http://{address}"))
    }

    /// The users with e-mail and password.
    pub fn users(&self) -> Vec<Value> {
        let user = |(id, name, email, password)| json!({"id": id, "name": name, "email": email, "password": password});
        USERS.into_iter().map(user).collect()
    }

    /// `anyHost`: the page takes the host of the gateway's URL from the page's own URL, since a device in the network
    /// reaches the machine by a different address.
    fn page_config(&self) -> Value {
        let any_host = self.host.is_unspecified() && self.public_url.is_none();
        json!({"websocket": self.websocket_url(), "anyHost": any_host, "room": ROOM, "users": self.users()})
    }

    /// Directory that PocketBase serves. It is made anew in each run, so no file of the user belongs there.
    fn public(&self) -> PathBuf {
        self.data.join("site")
    }

    fn pocketbase_address(&self) -> SocketAddr {
        SocketAddr::new(reachable(self.host), self.ports.pocketbase)
    }

    /// Address for the local machine only: the admin listener is private.
    fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.ports.admin)
    }

    fn pocketbase_folders(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            [("--dir", "pb_data"), ("--hooksDir", "pb_hooks"), ("--migrationsDir", "pb_migrations")]
                .map(|(name, folder)| flag(name, &self.data.join(folder)))
                .into();
        arguments.extend(["--hooksPool=100", "--hooksWatch=false", "--automigrate=false"].map(OsString::from));
        arguments
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let gateway = SocketAddr::new(reachable(self.host), self.ports.gateway);
        vec![("GATEWAY_SECRET", self.secret.clone()), ("GATEWAY_URL", format!("http://{gateway}"))]
    }
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(path);
    flag
}

/// Address of a listener as seen by the local machine.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}

/// Creates a directory for the owner only (mode 700).
pub fn create_private(folder: &Path) -> anyhow::Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.with_context(|| format!("cannot create {}", folder.display()))
}

/// The secret in a file for the owner only (mode 600), made in the first run.
fn kept_secret(place: &Path, make: impl Fn() -> String) -> anyhow::Result<String> {
    if !place.exists() {
        let file = File::options().write(true).create_new(true).mode(0o600).open(place);
        file.and_then(|mut file| file.write_all(make().as_bytes()))
            .with_context(|| format!("cannot write {}", place.display()))?;
    }
    let secret = fs::read_to_string(place).with_context(|| format!("cannot read {}", place.display()))?;
    Ok(secret.trim().to_owned())
}
