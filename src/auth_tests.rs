use super::*;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

const KEY: &str = "tokenKey-of-the-user-and-secret-of-the-collection";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn claims() -> Value {
    json!({"id": "u1", "type": "auth", "collectionId": "users1", "exp": 1_800_000_100u64, "refreshable": true})
}

fn token(algorithm: Algorithm, claims: &Value, key: &str) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

fn checked(token: &str, key: &str) -> Result<Identity, AuthError> {
    let user = UserKey { key: key.into(), banned_until: 0, muted_until: 0, blocked: Vec::new() };
    Unproven::read(token)?.check(&Account::new(user, &"users1".into(), Instant::now()), now())
}

#[test]
fn a_token_of_pocketbase_proves_its_user() {
    let identity = checked(&token(Algorithm::HS256, &claims(), KEY), KEY).unwrap();
    assert_eq!(identity.user, "u1");
    assert_eq!(identity.ttl(now()), 75);
    assert_eq!(identity.ttl(now() - Duration::from_secs(900)), 970);
    assert_eq!(identity.ttl(now() + Duration::from_secs(500)), 1);
}

#[test]
fn everything_else_is_refused_for_what_it_is() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        token(Algorithm::HS256, &claims, KEY)
    };
    let good = token(Algorithm::HS256, &claims(), KEY);
    let (header, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"} and {"alg":"RS256","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let rs256 = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9";
    for (bad, why) in [
        (
            token(Algorithm::HS256, &claims(), "another key of the same length or so, or longer"),
            AuthError::Invalid("wrong signature"),
        ),
        (token(Algorithm::HS384, &claims(), KEY), AuthError::Invalid("wrong algorithm")),
        (format!("{none}.{payload}."), AuthError::Invalid("malformed")),
        (format!("{rs256}.{payload}.{signature}"), AuthError::Invalid("wrong algorithm")),
        (format!("{header}.{payload}."), AuthError::Invalid("wrong signature")),
        (with("type", json!("file")), AuthError::Invalid("not an auth token")),
        (with("collectionId", json!("_superusers")), AuthError::Invalid("of another collection")),
        (with("exp", json!(1_800_000_000u64)), AuthError::Expired),
        (with("exp", json!(u64::MAX)), AuthError::Invalid("malformed")),
        (with("exp", json!("soon")), AuthError::Invalid("malformed")),
        (String::new(), AuthError::Invalid("malformed")),
        ("a.b.c".to_owned(), AuthError::Invalid("malformed")),
    ] {
        assert_eq!(checked(&bad, KEY), Err(why), "{bad}");
    }
}

#[test]
fn an_expired_token_with_a_wrong_signature_is_forged_not_expired() {
    let mut old = claims();
    old["exp"] = json!(1);
    let forged = token(Algorithm::HS256, &old, "another key of the same length or so, or longer");
    assert_eq!(checked(&forged, KEY), Err(AuthError::Invalid("wrong signature")));
}

#[test]
fn an_empty_key_lets_nobody_in() {
    assert_eq!(checked(&token(Algorithm::HS256, &claims(), ""), ""), Err(AuthError::Invalid("unusable key")));
}

#[test]
fn bans_and_mutes_end_by_themselves() {
    let user = UserKey { key: KEY.into(), banned_until: 2_000, muted_until: 3_000, blocked: vec!["eve".into()] };
    let account = Account::new(user, &"users1".into(), Instant::now());
    let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
    assert!(account.is_banned(at(1_999)) && !account.is_banned(at(2_000)));
    assert!(account.is_muted(at(2_999)) && !account.is_muted(at(3_000)));
    assert!(account.blocks("eve") && !account.blocks("bob"));
}
