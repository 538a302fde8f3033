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
    check_with(key, "users1", token, now())
}

#[test]
fn a_token_of_pocketbase_proves_its_user() {
    let identity = checked(&token(Algorithm::HS256, &claims(), KEY), KEY).unwrap();
    assert_eq!(&*identity.user, "u1");
    assert_eq!(identity.ttl(now()), Some(75));
    assert_eq!(identity.ttl(now() - Duration::from_secs(900)), Some(970));
    assert_eq!(identity.ttl(now() + Duration::from_secs(500)), Some(1));
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
        (with("collectionId", json!("_superusers")), AuthError::Invalid("of another account")),
        (with("collectionId", json!("users1/x")), AuthError::Invalid("malformed")),
        (with("collectionId", json!("")), AuthError::Invalid("malformed")),
        (with("collectionId", json!("c".repeat(1001))), AuthError::Invalid("malformed")),
        (with("id", json!("")), AuthError::Invalid("malformed")),
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
fn a_token_is_valid_for_the_account_that_it_names_alone() {
    let token = token(Algorithm::HS256, &claims(), KEY);
    let checked = |collection: &str, id: &str| {
        let id = AccountId::new(collection, id).unwrap();
        Unproven::read(&token)?.check(&Account::new(id, UserKey::signing("staff/u1", KEY), Instant::now()), now())
    };
    assert_eq!(&*checked("users1", "u1").unwrap().user, "staff/u1");
    for (collection, id) in [("staff1", "u1"), ("users1", "u2"), ("users1", "u1/"), ("users", "1/u1")] {
        assert_eq!(checked(collection, id), Err(AuthError::Invalid("of another account")), "{collection} {id}");
    }
}
