//! The result on stdout: a text for people, or a line of JSON for programs.

use super::say;
use super::site::{ROOM, SUPERUSER, Site};
use serde_json::{Value, json};
use std::time::Duration;

pub fn print(site: &Site, took: Duration, headless: bool) {
    let seconds = took.as_secs_f64();
    if headless {
        println!("{}", facts(site));
        say(format_args!("ready after {seconds:.1} s"));
    } else {
        println!("{}", text(site, seconds));
    }
}

fn facts(site: &Site) -> Value {
    json!({
        "websocket": site.websocket_url(),
        "gateway": site.gateway_url(),
        "admin": site.admin_url(),
        "pocketbase": site.pocketbase_url(),
        "superuser": {"email": SUPERUSER, "password": site.superuser_password},
        "users": site.users(),
        "room": ROOM,
    })
}

fn text(site: &Site, seconds: f64) -> String {
    let word = |user: &Value, field: &str| user[field].as_str().unwrap_or_default().to_owned();
    let users: Vec<String> = site
        .users()
        .iter()
        .map(|user| format!("{:<19}{:<12}id {}", word(user, "email"), word(user, "password"), word(user, "id")))
        .collect();
    let page = site.pocketbase_url();
    let network = site.network_url().map(|url| format!("\n               {url}/?user=bob   (from other devices)"));
    format!(
        "
Ready after {seconds:.1} s.

  Demo chat    {page}/?user=alice
               {page}/?user=bob        (open both, side by side){}
  Log in       {}
  Room         {ROOM}   (channel room:{ROOM})
  WebSocket    {}
  Dashboard    {page}/_/   {SUPERUSER}  {}
  Gateway      {}/   (page for operators; also /metrics, /livez, /readyz)

Ctrl-C stops both.",
        network.unwrap_or_default(),
        users.join("\n               "),
        site.websocket_url(),
        site.superuser_password,
        site.admin_url(),
    )
}
