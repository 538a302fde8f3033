//! A real PocketBase with the gateway's hooks and the application's own hooks, and its data in a temporary folder.

use super::http::{Http, Response};
use super::process::{Process, free_port};
use super::{SECRET, tokens, until};
use jsonwebtoken::Algorithm;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;
use tempfile::TempDir;

const PASSWORD: &str = "a-password-for-tests";
const SUPERUSER: &str = "admin@example.com";

pub struct PocketBase {
    pub url: String,
    pub process: Process,
    http: Http,
    pub superuser: String,
    pub port: u16,
    settings: Settings,
    directory: TempDir,
}

struct Settings {
    gateway_url: String,
    /// Folder of the application's own `pb_hooks` and `pb_migrations`.
    application: PathBuf,
    /// Hooks that replace the installed hooks.
    hooks: Option<PathBuf>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Settings {
    fn of(application: PathBuf, gateway_url: &str) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { gateway_url: gateway_url.to_owned(), application, hooks: None, arguments, environment }
    }
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub token: String,
}

impl PocketBase {
    /// The chat's PocketBase.
    pub async fn start(gateway_url: &str) -> Self {
        Self::begin(Settings::of(chat(), gateway_url)).await
    }

    /// Another application's PocketBase.
    pub async fn start_application(application: PathBuf, gateway_url: &str) -> Self {
        Self::begin(Settings::of(application, gateway_url)).await
    }

    /// The chat's PocketBase with other hooks, and more arguments for `serve`.
    pub async fn start_with(gateway_url: &str, hooks: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::begin(Settings { hooks: Some(hooks.to_owned()), arguments, ..Settings::of(chat(), gateway_url) }).await
    }

    /// The chat's PocketBase with more variables in its environment.
    pub async fn start_in(gateway_url: &str, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::begin(Settings { environment, ..Settings::of(chat(), gateway_url) }).await
    }

    async fn begin(settings: Settings) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for part in ["pb_hooks", "pb_migrations"] {
            install(&settings.application, part, &directory.path().join(part));
        }
        let created = command(directory.path(), &settings).args(["superuser", "upsert", SUPERUSER, PASSWORD]).output();
        let created = created.expect("PocketBase runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let port = free_port();
        let process = serve(directory.path(), port, &settings);
        let url = format!("http://127.0.0.1:{port}");
        let mut it = Self { url, process, http: Http::new(), superuser: String::new(), port, settings, directory };
        it.ready().await;
        it.superuser = it.log_in("_superusers", SUPERUSER).await["token"].as_str().expect("a token").to_owned();
        it
    }

    /// Starts again after a kill, with the same data on the same port.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = serve(self.directory.path(), self.port, &self.settings);
        self.ready().await;
    }

    /// Sets an environment variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        let environment = &mut self.settings.environment;
        environment.retain(|(given, _)| given != name);
        environment.push((name.to_owned(), value.to_owned()));
    }

    /// The database file, for use while PocketBase is stopped.
    pub fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("pb_data/data.db")
    }

    /// Makes a backup with PocketBase; returns the backup's name.
    pub async fn back_up(&self) -> String {
        let name = "before.zip".to_owned();
        self.as_superuser("POST", "backups", &json!({"name": name})).await;
        name
    }

    /// Restores a backup with PocketBase, which then restarts itself.
    pub async fn restore(&mut self, backup: &str) {
        let before = self.boot().await;
        self.as_superuser("POST", &format!("backups/{backup}/restore"), &Value::Null).await;
        until("the restart after the restore", async || {
            let now = self.boot().await;
            (!now.is_empty() && now != before).then_some(())
        })
        .await;
    }

    /// Boot id of the current run, as in the hooks' answers; empty while PocketBase is down.
    pub async fn boot(&self) -> String {
        self.outbox().await.0
    }

    /// Boot id of the current run, which is empty while PocketBase is down, and the newest event's sequence number.
    pub async fn outbox(&self) -> (String, u64) {
        let signer = Signer::new(&SECRET.into());
        let target = "/api/gateway/events?after=0&limit=1";
        let (timestamp, signature) = signer.sign(SystemTime::now(), "GET", target, b"");
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        let answer = self.http.send("GET", &format!("{}{target}", self.url), &headers, "").await;
        let answer = answer.map(|answer| answer.json()).unwrap_or_default();
        (answer["boot"].as_str().unwrap_or_default().to_owned(), answer["last"].as_u64().unwrap_or_default())
    }

    async fn ready(&mut self) {
        let url = format!("{}/api/health", self.url);
        let Self { process, http, .. } = self;
        until("PocketBase", async || {
            assert!(!process.has_ended(), "PocketBase ended:\n{}", process.log());
            http.get(&url).await.ok().filter(|response| response.status == 200)
        })
        .await;
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Result<Response, String> {
        let headers = [("authorization", token), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.http.send(method, &format!("{}/api/{path}", self.url), &headers, body).await
    }

    /// Like `call`, for a request that must succeed.
    pub async fn done(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let response = self.call(method, path, token, body).await.expect("PocketBase answers");
        assert!(response.status < 300, "{method} {path}: {} {}", response.status, response.text);
        response.json()
    }

    pub async fn as_superuser(&self, method: &str, path: &str, body: &Value) -> Value {
        self.done(method, path, &self.superuser, body).await
    }

    pub fn superuser_token(&self) -> &str {
        &self.superuser
    }

    pub async fn create(&self, collection: &str, user: &User, record: &Value) -> Value {
        self.done("POST", &format!("collections/{collection}/records"), &user.token, record).await
    }

    pub async fn log_in(&self, collection: &str, identity: &str) -> Value {
        let path = format!("collections/{collection}/auth-with-password");
        self.done("POST", &path, "", &json!({"identity": identity, "password": PASSWORD})).await
    }

    pub async fn user(&self, name: &str) -> User {
        self.account("users", name).await
    }

    /// Creates a record in an auth collection and logs in.
    pub async fn account(&self, collection: &str, name: &str) -> User {
        let email = format!("{name}@example.com");
        let record = json!({"email": email, "password": PASSWORD, "passwordConfirm": PASSWORD, "verified": true});
        self.as_superuser("POST", &format!("collections/{collection}/records"), &record).await;
        self.log_in_again_to(collection, name).await
    }

    /// Logs in an existing user.
    pub async fn log_in_again(&self, name: &str) -> User {
        self.log_in_again_to("users", name).await
    }

    pub async fn log_in_again_to(&self, collection: &str, name: &str) -> User {
        let answer = self.log_in(collection, &format!("{name}@example.com")).await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        User { id: text(&answer["record"]["id"]), token: text(&answer["token"]) }
    }

    /// Creates `count` copies of a user directly in the table, without the hooks' notice. PocketBase would take a
    /// second for ten passwords.
    pub async fn copies(&self, of: &User, count: usize) -> Vec<User> {
        const SCRIPT: &str = r"
import secrets, sqlite3, string, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
db.row_factory = sqlite3.Row
like = dict(db.execute('SELECT * FROM users WHERE id = ?', [sys.argv[2]]).fetchone())
for i in range(int(sys.argv[3])):
    like['id'] = ''.join(secrets.choice(string.ascii_lowercase) for _ in range(15))
    like['tokenKey'] = secrets.token_hex(25)
    like['email'] = like['id'] + '@example.com'
    like.update((name, like['id']) for name in ('username', 'username_key') if name in like)
    fields, places = ','.join('`%s`' % name for name in like), ','.join('?' * len(like))
    db.execute('INSERT INTO users (%s) VALUES (%s)' % (fields, places), list(like.values()))
    print(like['id'])
db.commit()";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(self.database()).args([&of.id, &count.to_string()]);
        let output = command.output().expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ids: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let (keys, collection) = tokens::signing_keys(self, &ids).await;
        let token = |id: &str, key: &str| tokens::sign(Algorithm::HS256, &tokens::claims(id, &collection), key);
        ids.into_iter().zip(keys).map(|(id, key)| User { token: token(&id, &key), id }).collect()
    }

    /// Changes a record's id in the database. PocketBase would refuse an id used in another auth collection.
    pub fn change_id(&self, collection: &str, from: &str, to: &str) {
        const SCRIPT: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
db.execute('UPDATE `%s` SET id = ? WHERE id = ?' % sys.argv[2], (sys.argv[4], sys.argv[3]))
db.commit()";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(self.database()).args([collection, from, to]);
        let output = command.output().expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Replaces a text in `gateway.config.js`, for the next start.
    pub fn edit_config(&self, from: &str, to: &str) {
        let path = self.directory.path().join("pb_hooks/gateway.config.js");
        let config = std::fs::read_to_string(&path).expect("it is there");
        assert!(config.contains(from), "{from} is not in {config}");
        std::fs::write(&path, config.replace(from, to)).expect("it can be written");
    }

    /// Creates a private room; returns its id.
    pub async fn room(&self, owner: &User) -> String {
        let room = json!({"name": "Room", "type": "private", "owner": owner.id});
        let room = self.create("rooms", owner, &room).await;
        room["id"].as_str().expect("an id").to_owned()
    }

    pub async fn join(&self, room: &str, user: &User) -> Value {
        let membership = json!({"room": room, "user": user.id, "role": "member"});
        self.as_superuser("POST", "collections/room_members/records", &membership).await
    }

    /// Writes rows (`{"channels":[…],"data":{…}}`) directly into the outbox, fast and without the hooks' notice.
    /// Returns the first row's sequence number.
    pub fn append_to_outbox(&self, rows: &[String]) -> u64 {
        const SCRIPT: &str = r"
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30)
rows = ((int(time.time() * 1000), line.rstrip('\n')) for line in sys.stdin)
db.executemany('INSERT INTO _gateway_outbox (created, event) VALUES (?, ?)', rows)
print(db.execute('SELECT max(seq) FROM _gateway_outbox').fetchone()[0])
db.commit()";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(self.directory.path().join("pb_data/data.db"));
        let mut python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut input = python.stdin.take().expect("it was asked for");
        input.write_all((rows.join("\n") + "\n").as_bytes()).expect("it reads");
        drop(input);
        let output = python.wait_with_output().expect("it ends");
        let last: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("the last number");
        last + 1 - rows.len() as u64
    }

    pub async fn write(&self, room: &str, author: &User, content: &str) -> Value {
        self.create("messages", author, &super::message(room, author, content)).await
    }
}

/// `$POCKETBASE`, or the program found or downloaded by `deploy/get-pocketbase.sh`.
pub fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/get-pocketbase.sh");
        let output = Command::new(script).output().expect("get-pocketbase.sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// Folder of the chat's own PocketBase files.
pub fn chat() -> PathBuf {
    project("deploy/konvert/pocketbase")
}

/// Copies a part (`pb_hooks` or `pb_migrations`) of the gateway's files into `into`, and then the application's files.
pub fn install(application: &Path, part: &str, into: &Path) {
    for from in [project("deploy/pocketbase"), application.to_owned()] {
        copy(&from.join(part), into);
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

fn command(data: &Path, settings: &Settings) -> Command {
    let mut command = Command::new(program());
    command
        .arg("--dir")
        .arg(data.join("pb_data"))
        .arg("--hooksDir")
        .arg(settings.hooks.clone().unwrap_or_else(|| data.join("pb_hooks")))
        .arg("--migrationsDir")
        .arg(data.join("pb_migrations"))
        .arg("--publicDir")
        .arg(data.join("pb_public"))
        .arg("--automigrate=false")
        .env("GATEWAY_SECRET", SECRET);
    command
}

fn serve(data: &Path, port: u16, settings: &Settings) -> Process {
    let mut command = command(data, settings);
    command.args(["serve", "--http", &format!("127.0.0.1:{port}")]).args(&settings.arguments);
    command.env("GATEWAY_URL", &settings.gateway_url);
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    Process::start("PocketBase", &mut command)
}
