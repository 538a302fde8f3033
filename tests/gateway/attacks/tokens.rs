//! Tokens that are invalid, or belong to another user.

use super::arena::{Arena, outcome};
use crate::harness::client::Client;
use crate::harness::tokens::{claims, sign, signing_key};
use aws_lc_rs::hmac;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A token signed with HMAC-SHA256, regardless of the header's algorithm.
fn token(header: &str, payload: &str, key: &str) -> String {
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = base64url(hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        (0..=chunk.len()).map(move |i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]))
    });
    digits.collect()
}

pub async fn run(arena: &mut Arena) {
    arena.begin("tokens");
    headers_and_signatures(arena).await;
    wrong_claims(arena).await;
    tokens_for_something_else(arena).await;
    users_who_may_not(arena).await;
    commands_out_of_order(arena).await;
}

async fn headers_and_signatures(arena: &mut Arena) {
    let (key, collection) = signing_key(&arena.world.pocketbase, &arena.alice.id).await;
    let payload = claims(&arena.alice.id, &collection).to_string();
    let good = token(HS256, &payload, &key);
    assert_eq!(arena.connect(&good).await, "ok", "what follows differs in one thing from a token that is right");
    let (body, signature) = good.rsplit_once('.').expect("three parts");
    let other = token(HS256, &claims(&arena.bob.id, &collection).to_string(), &key);
    let mine = "k".repeat(80);
    let own_key = r#"{"alg":"HS256","jwk":{"kty":"oct","k":"a2trawo"}}"#;
    let mut forged: Vec<(String, String)> = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": none}).to_string();
        let unsigned = format!("{}.{}.", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        forged.push((format!("alg \"{none}\", unsigned"), unsigned));
        forged.push((format!("alg \"{none}\", signed all the same"), token(&header, &payload, &key)));
    }
    for header in ["{}", "[]", "null", "nonsense", r#"{"alg":null}"#, r#"{"alg":["HS256","none"]}"#] {
        forged.push((format!("header {header}"), token(header, &payload, &key)));
    }
    for algorithm in ["RS256", "ES256", "PS256", "EdDSA", "HS384", "HS512", "hs256"] {
        let header = json!({"alg": algorithm}).to_string();
        forged.push((format!("alg {algorithm} over HMAC-SHA256"), token(&header, &payload, &key)));
    }
    let claims: Value = serde_json::from_str(&payload).expect("JSON");
    let rest = [
        ("HS384, rightly signed", sign(Algorithm::HS384, &claims, &key)),
        ("HS512, rightly signed", sign(Algorithm::HS512, &claims, &key)),
        ("another key", token(HS256, &payload, &mine)),
        ("an empty key", token(HS256, &payload, "")),
        ("kid that leads to an empty file", token(r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, &payload, "")),
        ("kid with SQL", token(r#"{"alg":"HS256","kid":"x' UNION SELECT 'k"}"#, &payload, "k")),
        ("jku of the attacker", token(r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys"}"#, &payload, &mine)),
        ("x5u of the attacker", token(r#"{"alg":"HS256","x5u":"http://127.0.0.1:1/x"}"#, &payload, &mine)),
        ("jwk brought along", token(own_key, &payload, "kkkk")),
        ("crit, another key", token(r#"{"alg":"HS256","crit":["exp"]}"#, &payload, &mine)),
        ("no signature", format!("{body}.")),
        ("two parts", body.to_owned()),
        ("signature cut off", good[..good.len() - 4].to_owned()),
        ("signature of another payload", format!("{body}.{}", other.rsplit('.').next().expect("a signature"))),
        ("payload of another signature", {
            let parts: Vec<&str> = other.split('.').collect();
            format!("{}.{}.{signature}", parts[0], parts[1])
        }),
        ("a fourth part", format!("{good}.x")),
        ("a line feed behind it", format!("{good}\n")),
        ("a space before it", format!(" {good}")),
        ("a NUL behind it", format!("{good}\0")),
        ("padding behind it", format!("{good}=")),
        ("two tokens", format!("{good},{good}")),
        ("\"Bearer\" before it", format!("Bearer {good}")),
        ("nonsense", "not.a.token".to_owned()),
        ("dots alone", "..".to_owned()),
        ("50,000 characters", "x".repeat(50_000)),
    ];
    forged.extend(rest.map(|(name, token)| (name.to_owned(), token)));
    for (name, token) in forged {
        let seen = arena.connect(&token).await;
        arena.score(&name, "3500", &seen).await;
    }
    let seen = arena.connect("").await;
    arena.score("no token", "error 101", &seen).await;
}

async fn wrong_claims(arena: &mut Arena) {
    let alice = arena.alice.id.clone();
    let (key, collection) = signing_key(&arena.world.pocketbase, &alice).await;
    let right = claims(&alice, &collection);
    let with = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        claims.to_string()
    };
    let without = |name: &str| {
        let mut claims = right.clone();
        claims.as_object_mut().expect("an object").remove(name);
        claims.to_string()
    };
    let twice = |first: &str| right.to_string().replacen('{', &format!("{{{first},"), 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let bob = arena.bob.id.clone();
    for (name, payload, expected) in [
        ("expired a second ago", with("exp", json!(now - 1)), "error 109"),
        ("exp 0", with("exp", json!(0)), "error 109"),
        ("exp absent", without("exp"), "3500"),
        ("exp null", with("exp", json!(null)), "3500"),
        ("exp a float", with("exp", json!(now as f64 + 3600.5)), "3500"),
        ("exp negative", with("exp", json!(-1)), "3500"),
        ("exp a string", with("exp", json!((now + 3600).to_string())), "3500"),
        ("exp 1e400", with("exp", json!(7)).replace(":7,", ":1e400,").replace(":7}", ":1e400}"), "3500"),
        ("exp 2^64 - 1", with("exp", json!(u64::MAX)), "3500"),
        ("exp twice", twice("\"exp\":4102444800"), "3500"),
        ("id twice", twice(&format!("\"id\":\"{bob}\"")), "3500"),
        ("another user's id", with("id", json!(bob)), "3500"),
        ("id of nobody", with("id", json!("nosuchuser00000")), "3500"),
        ("id absent", without("id"), "3500"),
        ("id null", with("id", json!(null)), "3500"),
        ("id a number", with("id", json!(1)), "3500"),
        ("id a list", with("id", json!([alice])), "3500"),
        ("id empty", with("id", json!("")), "3500"),
        ("id a path", with("id", json!(format!("../users/{alice}"))), "3500"),
        ("id with SQL", with("id", json!("' OR 1=1 --")), "3500"),
        ("id with a filter", with("id", json!("\" || id != \"")), "3500"),
        ("id with NUL", with("id", json!(format!("{alice}\0"))), "3500"),
        ("id in other case", with("id", json!(alice.to_uppercase())), "3500"),
        ("id in full-width letters", with("id", json!("ａｌｉｃｅ")), "3500"),
        ("id a key of JavaScript's objects", with("id", json!("__proto__")), "3500"),
        ("id of 2,000 characters", with("id", json!("x".repeat(2000))), "3500"),
        ("type absent", without("type"), "3500"),
        ("type in capitals", with("type", json!("AUTH")), "3500"),
        ("type a list", with("type", json!(["auth"])), "3500"),
        ("type file, user's key", with("type", json!("file")), "3500"),
        ("type verification, user's key", with("type", json!("verification")), "3500"),
        ("type passwordReset, user's key", with("type", json!("passwordReset")), "3500"),
        ("type emailChange, user's key", with("type", json!("emailChange")), "3500"),
        ("type mfa, user's key", with("type", json!("mfa")), "3500"),
        ("collection absent", without("collectionId"), "3500"),
        ("collection of the superusers, user's key", with("collectionId", json!("pbc_3142635823")), "3500"),
        ("collection by its name", with("collectionId", json!("users")), "3500"),
        ("claims a list", "[\"id\"]".to_owned(), "3500"),
        ("claims cut off", right.to_string()[..40].to_owned(), "3500"),
        ("5,000 bytes of claims", with("padding", json!("x".repeat(5000))), "3500"),
        ("claims nested 1,000 deep", with("exp", json!(7)).replace(":7", &deep(1000)), "3500"),
    ] {
        let seen = arena.connect(&token(HS256, &payload, &key)).await;
        arena.score(name, expected, &seen).await;
    }
}

fn deep(levels: usize) -> String {
    format!(":{}1{}", "[".repeat(levels), "]".repeat(levels))
}

/// Genuine PocketBase tokens, each for another purpose or from another collection.
async fn tokens_for_something_else(arena: &mut Arena) {
    let alice = arena.alice.clone();
    let file = arena.world.pocketbase.done("POST", "files/token", &alice.token, &json!({})).await;
    let superuser = arena.world.pocketbase.log_in("_superusers", "admin@example.com").await;
    let path = format!("collections/_superusers/impersonate/{}", superuser["record"]["id"].as_str().expect("an id"));
    let impersonated = arena.as_superuser("POST", &path, &json!({"duration": 600})).await;

    let staff = json!({"name": "staff", "type": "auth", "authRule": ""});
    arena.as_superuser("POST", "collections", &staff).await;
    let password = "a-password-for-tests";
    let double = json!({"email": "alice@example.com", "password": password, "passwordConfirm": password});
    arena.as_superuser("POST", "collections/staff/records", &double).await;
    let staff = arena.world.pocketbase.log_in("staff", "alice@example.com").await;

    let text = |value: &Value| value["token"].as_str().expect("a token").to_owned();
    for (name, token) in [
        ("Alice's file token", text(&file)),
        ("a superuser's token", text(&superuser)),
        ("a superuser impersonated", text(&impersonated)),
        ("another auth collection, same e-mail address", text(&staff)),
    ] {
        let seen = arena.connect(&token).await;
        arena.score(name, "3500", &seen).await;
    }
    for (kind, option) in [
        ("verification", "verificationToken"),
        ("passwordReset", "passwordResetToken"),
        ("emailChange", "emailChangeToken"),
    ] {
        let (key, collection) = mail_key(arena, &alice.id, option);
        let mut claims = claims(&alice.id, &collection);
        (claims["type"], claims["email"]) = (json!(kind), json!("alice@example.com"));
        let seen = arena.connect(&sign(Algorithm::HS256, &claims, &key)).await;
        arena.score(&format!("a {kind} token, as mailed"), "3500", &seen).await;
    }
}

/// The key of PocketBase's mailed tokens, such as password resets, and the collection's id. The API never returns such
/// keys.
fn mail_key(arena: &Arena, user: &str, option: &str) -> (String, String) {
    const SCRIPT: &str = r"
import json, sqlite3, sys
db = sqlite3.connect('file:%s?mode=ro' % sys.argv[1], uri=True, timeout=30)
key = db.execute('SELECT tokenKey FROM users WHERE id = ?', [sys.argv[2]]).fetchone()[0]
id, options = db.execute('SELECT id, options FROM _collections WHERE name = ?', ['users']).fetchone()
print(key + json.loads(options)[sys.argv[3]]['secret'])
print(id)";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(arena.world.pocketbase.database()).args([user, option]);
    let output = command.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (key, collection) = text.trim().split_once('\n').expect("two lines");
    (key.to_owned(), collection.to_owned())
}

async fn users_who_may_not(arena: &mut Arena) {
    for (name, expected, body) in [
        ("of a deleted user", "3500", None),
        ("of a banned user", "4501", Some(json!({"banned_until": "2099-01-01 00:00:00.000Z"}))),
        (
            "from before a new password",
            "3500",
            Some(json!({"password": "new-password", "passwordConfirm": "new-password"})),
        ),
        ("from before a log-out everywhere", "3500", Some(json!({"tokenKey": "x".repeat(50)}))),
    ] {
        let user = arena.somebody().await;
        // Makes the gateway cache the key.
        let mut client = Client::connect(arena.gateway(), &user.token).await;
        let path = format!("collections/users/records/{}", user.id);
        let method = if body.is_some() { "PATCH" } else { "DELETE" };
        arena.as_superuser(method, &path, &body.unwrap_or(Value::Null)).await;
        let told = client.closed().await.0;
        assert!((4500..=4502).contains(&told), "{name}: {told}");
        let seen = arena.connect(&user.token).await;
        arena.score(name, expected, &seen).await;
    }
}

async fn commands_out_of_order(arena: &mut Arena) {
    let (key, collection) = signing_key(&arena.world.pocketbase, &arena.alice.id).await;
    let mut expired = claims(&arena.alice.id, &collection);
    expired["exp"] = json!(1);
    let expired = sign(Algorithm::HS256, &expired, &key);
    let alice = arena.alice.token.clone();
    for (name, command, request, expected) in [
        ("refresh to another user's token", "refresh", json!({"token": arena.bob.token}), "3500"),
        ("refresh with an expired token", "refresh", json!({"token": expired}), "3005"),
        ("refresh with nonsense", "refresh", json!({"token": "x"}), "3500"),
        ("refresh with nothing", "refresh", json!({}), "3500"),
        ("connect twice", "connect", json!({"token": alice}), "3501"),
        ("connect again as another user", "connect", json!({"token": arena.bob.token}), "3501"),
        ("a list of tokens", "refresh", json!({"token": [alice, alice]}), "error 107"),
    ] {
        let mut client = Client::connect(arena.gateway(), &alice).await;
        let seen = arena.command(&mut client, command, &request).await;
        arena.score(name, expected, &seen).await;
    }
    let channel = arena.channel();
    for command in [
        "subscribe",
        "unsubscribe",
        "publish",
        "history",
        "presence",
        "presence_stats",
        "rpc",
        "refresh",
        "ping",
        "send",
    ] {
        let mut client = Client::open(&arena.gateway().websocket()).await;
        let request = json!({"channel": channel, "data": {"type": "typing"}, "method": "x", "token": alice});
        let seen = arena.command(&mut client, command, &request).await;
        arena.score(&format!("{command} before connect"), "3501", &seen).await;
    }
    // In one frame: the subscribe must not profit from the failing connect before it.
    let mut client = Client::open(&arena.gateway().websocket()).await;
    let connect = json!({"id": 1, "connect": {"token": expired}});
    client.send(&format!("{connect}\n{}", json!({"id": 2, "subscribe": {"channel": channel}}))).await;
    assert_eq!(outcome(&mut client, 1).await, "error 109");
    let seen = outcome(&mut client, 2).await;
    arena.score("subscribe in the frame of a connect that fails", "nothing", &seen).await;
    let mut client = Client::open(&arena.gateway().websocket()).await;
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{alice}","token":"{}"}}}}"#, arena.bob.token)).await;
    let seen = outcome(&mut client, 1).await;
    arena.score("the field token twice", "3501", &seen).await;
}
