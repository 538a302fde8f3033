//! The alert rules and the Grafana dashboard, in a real Prometheus and promtool.

use crate::harness::client::Client;
use crate::harness::prometheus::{Prometheus, program};
use crate::harness::{World, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

const RULES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yml"));
const RULE_TESTS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts_test.yml"));
const DASHBOARD: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/konvert-gateway.json"));

/// The rest of each line of the rules that begins with `key`.
fn values(key: &str) -> Vec<&'static str> {
    RULES.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

/// The expressions of the dashboard's panels, with values for its variables.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    let filled = expressions.map(|text| {
        let text = text.replace("$job", "konvert-gateway").replace("$instance", ".+");
        text.replace("$__rate_interval", "1m")
    });
    filled.collect()
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_fires_in_a_test_and_says_what_to_do() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new(program("promtool")).args(arguments).current_dir(folder).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let alerts = values("- alert:");
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        assert!(RULE_TESTS.contains(&format!("alertname=\"{alert}\"")), "no test lets {alert} fire");
    }
    assert_eq!(values("action:").len(), alerts.len(), "each alert says what to do");
    assert_eq!(values("summary:").len(), alerts.len());
}

/// A gateway with traffic of every kind that the dashboard shows.
async fn busy(world: &World) -> Client {
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let channel = format!("room:{room}");
    let mut reader = world.subscriber(0, &users[1], &room).await;
    reader.subscribe("room-updates").await;
    let mut eve = Client::connect(world.gateway(), &users[3].token).await;
    assert_eq!(eve.call("subscribe", json!({"channel": channel})).await["error"]["code"], 103);
    world.pocketbase.write(&room, &users[0], "counted").await;
    assert_eq!(reader.message().await, "counted");

    let mut removed = world.subscriber(0, &users[2], &room).await;
    let filter = format!("collections/room_members/records?filter=(room='{room}'%26%26user='{}')", users[2].id);
    let found = world.pocketbase.as_superuser("GET", &filter, &Value::Null).await;
    let path = format!("collections/room_members/records/{}", found["items"][0]["id"].as_str().expect("a membership"));
    world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
    assert_eq!(removed.unsubscribed().await["code"], 2100);
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_rules_work_in_a_real_prometheus() {
    let mut world = World::start(1, true, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let target = world.gateway().admin("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    // The alerts wait for a second instead of minutes.
    let rules: Vec<String> = RULES
        .lines()
        .map(|line| if line.trim_start().starts_with("for:") { "        for: 1s".to_owned() } else { line.to_owned() })
        .collect();
    let prometheus = Prometheus::start(&[target], &rules.join("\n")).await;
    let _reader = busy(&world).await;

    let (shown, mut named) = (expressions(), BTreeSet::new());
    for text in shown.iter().map(String::as_str).chain(values("expr:")).chain(RULES.lines()) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        named.extend(words.filter(|word| word.starts_with("gateway_") || word.starts_with("process_")));
    }
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        // A histogram has no series of its plain name.
        prometheus.has(&format!("{name} or {name}_count")).await;
    }
    for expression in &shown {
        prometheus.has(expression).await;
    }
    assert_eq!(prometheus.query(r#"ALERTS{alertstate="firing"}"#).await, Vec::<Value>::new());

    let redis_down = r#"ALERTS{alertname="GatewayRedisDown", alertstate="firing"}"#;
    world.redis.as_mut().expect("a Redis").kill();
    prometheus.has(redis_down).await;
    world.redis.as_mut().expect("a Redis").restart();
    until("the alert to end", async || prometheus.query(redis_down).await.is_empty().then_some(())).await;
}
