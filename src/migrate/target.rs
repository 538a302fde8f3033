//! PocketBase with the chat's import routes.

use super::http::{Answer, Call, Http};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const VERSION: u64 = 2;

#[derive(Clone)]
pub struct Pocket {
    http: Http,
    pub url: String,
    token: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct Written {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    #[serde(default)]
    pub rejected: Vec<Rejected>,
}

/// Numbers of records.
#[derive(Debug, Default, Deserialize)]
pub struct Removed {
    pub removed: u64,
    /// Users and rooms with messages written in PocketBase, which stay.
    pub kept: u64,
}

#[derive(Debug, Deserialize)]
pub struct Rejected {
    pub id: String,
    pub reason: String,
}

impl Pocket {
    /// Logs in as a superuser, and checks the import routes.
    pub async fn login(url: &str, email: &str, password: &str) -> anyhow::Result<Self> {
        let http = Http::new(url)?;
        let url = url.trim_end_matches('/').to_owned();
        let token = token(&http, &url, "_superusers", email, password).await?;
        let token = token.context("PocketBase refused the superuser's e-mail address or password")?;
        let pocket = Self { http, url, token };
        let answer = pocket.http.call(&pocket.get("/api/konvert/import")).await?;
        ensure!(
            answer.status != 404,
            "this PocketBase has no import routes; copy deploy/konvert/pocketbase/pb_hooks and pb_migrations beside its \
             pb_data, and restart it"
        );
        let state: Value = checked(&answer)?;
        ensure!(
            state["version"] == VERSION,
            "the import routes have version {}, this program {VERSION}; take both from one release",
            state["version"]
        );
        Ok(pocket)
    }

    fn get(&self, path: &str) -> Call {
        Call::get(format!("{}{path}", self.url)).header("authorization", &self.token)
    }

    fn post(&self, path: &str, body: impl Into<bytes::Bytes>) -> Call {
        Call::post(format!("{}{path}", self.url), body).header("authorization", &self.token)
    }

    /// Rows by collection; with `before`, only rows created until then.
    pub async fn counts(&self, before: Option<&str>) -> anyhow::Result<BTreeMap<String, u64>> {
        let before = before.map_or_else(String::new, |date| format!("?before={}", super::http::encode(date, "")));
        let state: Value = checked(&self.http.call(&self.get(&format!("/api/konvert/import{before}"))).await?)?;
        Ok(serde_json::from_value(state["counts"].clone())?)
    }

    /// Writes a JSON array of `count` rows.
    pub async fn write(&self, collection: &str, rows: Vec<u8>, count: usize, force: bool) -> anyhow::Result<Written> {
        let force = if force { "&force=1" } else { "" };
        let path = format!("/api/konvert/import/rows/{collection}?rows={count}{force}");
        checked(&self.http.call(&self.post(&path, rows)).await?)
    }

    /// The rows with these ids, as far as there are any.
    pub async fn read(&self, collection: &str, ids: &[&str], columns: &[&str]) -> anyhow::Result<Vec<Value>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.found(collection, &json!({"ids": ids, "columns": columns})).await
    }

    /// The rows with one of the values in `column`.
    pub async fn read_where(
        &self,
        collection: &str,
        column: &str,
        values: &[&str],
        columns: &[&str],
    ) -> anyhow::Result<Vec<Value>> {
        self.found(collection, &json!({"column": column, "ids": values, "columns": columns})).await
    }

    async fn found(&self, collection: &str, body: &Value) -> anyhow::Result<Vec<Value>> {
        #[derive(Deserialize)]
        struct Found {
            rows: Vec<Value>,
        }
        let call = self.post(&format!("/api/konvert/import/read/{collection}"), body.to_string());
        let found: Found = checked(&self.http.call(&call).await?)?;
        Ok(found.rows)
    }

    /// Removes imported records by their ids.
    pub async fn remove(&self, collection: &str, ids: &[&str]) -> anyhow::Result<Removed> {
        let body = json!({"ids": ids}).to_string();
        checked(&self.http.call(&self.post(&format!("/api/konvert/import/remove/{collection}"), body)).await?)
    }

    pub async fn file(&self, meta: &Value, content: Vec<u8>) -> anyhow::Result<()> {
        let boundary = format!("konvert-{}", konvert_gateway::random::token::<16>());
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"meta\"\r\n\r\n{meta}\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"file\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(&content);
        drop(content);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let call = self
            .post("/api/konvert/import/file", body)
            .header("content-type", format!("multipart/form-data; boundary={boundary}"));
        let answer: Value = checked(&self.http.call(&call).await?)?;
        match answer["rejected"].as_str() {
            Some(reason) => bail!("PocketBase: {reason}"),
            None => Ok(()),
        }
    }

    /// Announces the end of an import.
    pub async fn done(&self) -> anyhow::Result<()> {
        checked::<Value>(&self.http.call(&self.post("/api/konvert/import/done", "{}")).await?)?;
        Ok(())
    }

    // ---- for the verification

    /// A user's token, given by the superuser.
    pub async fn impersonate(&self, user: &str) -> anyhow::Result<String> {
        let call = self.post(&format!("/api/collections/users/impersonate/{user}"), r#"{"duration":600}"#);
        let answer: Value = checked(&self.http.call(&call).await?)?;
        Ok(answer["token"].as_str().context("no token")?.to_owned())
    }

    /// An answer as a user sees it.
    pub async fn as_user(&self, token: &str, path: &str) -> anyhow::Result<Answer> {
        self.http.call(&Call::get(format!("{}{path}", self.url)).header("authorization", token)).await
    }

    /// Whether a user can log in.
    pub async fn can_log_in(&self, email: &str, password: &str) -> anyhow::Result<bool> {
        Ok(token(&self.http, &self.url, "users", email, password).await?.is_some())
    }
}

/// `None` if the login is refused.
async fn token(
    http: &Http,
    url: &str,
    collection: &str,
    email: &str,
    password: &str,
) -> anyhow::Result<Option<String>> {
    let body = json!({"identity": email, "password": password}).to_string();
    let call = Call::post(format!("{url}/api/collections/{collection}/auth-with-password"), body);
    let answer = http.call(&call).await.with_context(|| format!("is PocketBase running at {url}?"))?;
    if matches!(answer.status, 400 | 401 | 403) {
        return Ok(None);
    }
    let answer: Value = checked(&answer)?;
    Ok(answer["token"].as_str().map(str::to_owned))
}

fn checked<T: serde::de::DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    if !answer.is_success() {
        bail!("PocketBase answered {}: {}", answer.status, answer.excerpt());
    }
    answer.json()
}
