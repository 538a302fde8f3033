//! The old project's HTTP services: PostgREST (the table), GoTrue (accounts), Storage (files).

use super::http::{Answer, Call, Http, encode};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Rows of one page. Supabase answers at most 1,000, whatever is asked for.
pub const PAGE: usize = 1000;
const ACCOUNTS_PAGE: usize = 1000;

#[derive(Clone)]
pub struct Supabase {
    pub http: Http,
    pub url: String,
    /// Address of PostgREST: `URL/rest/v1` unless named.
    rest: String,
    headers: Vec<(&'static str, String)>,
}

/// The key's kind decides about its headers.
fn key_headers(key: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    if key.starts_with("sb_publishable_") {
        bail!("this is a publishable key, which sees no rows; take the secret key (sb_secret_… or service_role)");
    }
    // Keys of the new form are no JSON Web Tokens, and are refused as bearer.
    if key.starts_with("sb_secret_") {
        return Ok(vec![("apikey", key.to_owned())]);
    }
    let role = role_of(key).context(
        "the key is neither a JSON Web Token nor sb_secret_…; copy it again from the project's API settings",
    )?;
    ensure!(
        role != "anon" && role != "authenticated",
        "this is the key of the role \"{role}\", which gets an empty list instead of the rows; take the service_role \
         key"
    );
    Ok(vec![("apikey", key.to_owned()), ("authorization", format!("Bearer {key}"))])
}

/// The claim `role` of a JSON Web Token; the signature is for the server to check.
fn role_of(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&base64url(payload)?).ok()?;
    Some(claims.get("role")?.as_str()?.to_owned())
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(out)
}

impl Supabase {
    pub fn new(url: &str, rest: Option<&str>, key: &str) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "the project's URL must begin with https://, as in https://abc.supabase.co"
        );
        let rest = rest.map_or_else(|| format!("{url}/rest/v1"), |rest| rest.trim_end_matches('/').to_owned());
        Ok(Self { http: Http::new(&url)?, rest, url, headers: key_headers(key)? })
    }

    pub fn get(&self, path: &str) -> Call {
        Call::get(format!("{}{path}", self.url)).headers(&self.headers)
    }

    pub fn post(&self, path: &str, body: String) -> Call {
        Call::post(format!("{}{path}", self.url), body).headers(&self.headers)
    }

    fn rest(&self, path: &str) -> Call {
        Call::get(format!("{}{path}", self.rest)).headers(&self.headers)
    }

    // ---- the table

    /// The only table whose name begins with `kv_store_`.
    pub async fn find_table(&self) -> anyhow::Result<String> {
        let answer = self.http.expect(&self.rest("/")).await.context("listing the tables")?;
        let description: Value = answer.json()?;
        let paths = description.get("paths").or_else(|| description.get("definitions")).and_then(Value::as_object);
        let mut tables: Vec<&str> = paths
            .context("PostgREST lists no tables")?
            .keys()
            .map(|path| path.trim_start_matches('/'))
            .filter(|path| path.starts_with("kv_store_"))
            .collect();
        tables.sort_unstable();
        tables.dedup();
        match tables[..] {
            [table] => Ok(table.to_owned()),
            [] => bail!("there is no table kv_store_…; name the table with --table"),
            _ => bail!("there are several tables: {}; choose one with --table", tables.join(", ")),
        }
    }

    /// The number of rows, counted by PostgreSQL.
    pub async fn count(&self, table: &str) -> anyhow::Result<u64> {
        let call = self.rest(&format!("/{table}?select=key&limit=1")).header("prefer", "count=exact");
        let answer = self.http.expect(&call).await.context("counting the rows")?;
        let range = answer.header("content-range").and_then(|range| range.rsplit_once('/'));
        range.and_then(|(_, total)| total.parse().ok()).context("PostgREST gave no exact count")
    }

    /// The page of rows after `last`, by key.
    pub async fn page(&self, table: &str, last: Option<&str>) -> anyhow::Result<Answer> {
        let after = last.map_or_else(String::new, |key| format!("&key=gt.{}", encode(key, "")));
        self.http.expect(&self.rest(&format!("/{table}?select=key,value&order=key.asc&limit={PAGE}{after}"))).await
    }

    // ---- accounts

    /// All accounts by id. Pages are newest first, so that an account created meanwhile repeats another.
    pub async fn accounts(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        #[derive(Deserialize)]
        struct Page {
            users: Vec<Value>,
        }
        let mut all = BTreeMap::new();
        for page in 1.. {
            let call = self.get(&format!("/auth/v1/admin/users?page={page}&per_page={ACCOUNTS_PAGE}"));
            let answer = self.http.expect(&call).await.context("listing the accounts")?;
            let total: Option<u64> = answer.header("x-total-count").and_then(|total| total.parse().ok());
            let Page { users } = answer.json()?;
            if users.is_empty() {
                break;
            }
            for user in users {
                let id = user.get("id").and_then(Value::as_str).context("an account without an id")?.to_owned();
                all.insert(id, user);
            }
            if total.is_some_and(|total| all.len() as u64 >= total) {
                break;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_see_nothing_are_refused() {
        // {"role":"anon"} and {"role":"service_role"}
        assert!(key_headers("e30.eyJyb2xlIjoiYW5vbiJ9.x").unwrap_err().to_string().contains("service_role"));
        assert_eq!(key_headers("e30.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x").unwrap().len(), 2);
        assert_eq!(key_headers("sb_secret_abc").unwrap(), [("apikey", "sb_secret_abc".to_owned())]);
        assert!(key_headers("sb_publishable_abc").is_err());
        assert!(key_headers("rubbish").is_err());
    }
}
