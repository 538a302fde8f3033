//! Files of the old project's Storage: listed, downloaded into `files/`, checksummed; an interrupted run continues.

use super::document;
use super::http::{Call, encode};
use super::mapping::FILES;
use super::progress::Progress;
use super::spool::Spool;
use super::supabase::Supabase;
use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use konvert_gateway::hex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PAGE: usize = 1000;
const AT_ONCE: usize = 8;
const ATTEMPTS: u32 = 6;

/// A row of the export's section `files`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stored {
    pub bucket: String,
    pub path: String,
    pub size: u64,
    pub sha256: String,
    #[serde(default)]
    pub etag: String,
    #[serde(default)]
    pub mime: String,
    #[serde(default)]
    pub created_at: String,
    /// Where the file lies below the export's directory.
    pub local: String,
}

/// A file of a listing.
#[derive(Clone, Debug)]
struct Listed {
    bucket: String,
    path: String,
    etag: String,
    mime: String,
    created_at: String,
}

/// Key of a file's row.
pub fn key(bucket: &str, path: &str) -> String {
    format!("file:{bucket}/{path}")
}

/// Downloads what is new or has changed. Returns the number of files and of failures.
pub async fn export(source: &Supabase, folder: &Path, spool: &mut Spool) -> anyhow::Result<(u64, Vec<String>)> {
    let mut listed = Vec::new();
    for bucket in buckets(source).await? {
        list(source, &bucket, &mut listed).await.with_context(|| format!("listing the bucket {bucket}"))?;
    }
    let mut known = std::collections::HashMap::new();
    spool.read(FILES, |line| {
        let row: Value = serde_json::from_str(line)?;
        let stored: Stored = serde_json::from_value(row["value"].clone())?;
        known.insert(key(&stored.bucket, &stored.path), stored);
        Ok(())
    })?;
    let mut progress = Progress::new("files", listed.len() as u64);
    let mut failures = Vec::new();
    let mut downloads = futures_util::stream::iter(listed.into_iter().map(|file| {
        let have = known.remove(&key(&file.bucket, &file.path)).filter(|have| is_current(folder, have, &file));
        async move {
            match have {
                Some(stored) => Ok(stored),
                None => download(source, folder, &file)
                    .await
                    .map_err(|error| format!("{}/{}: {error:#}", file.bucket, file.path)),
            }
        }
    }))
    .buffer_unordered(AT_ONCE);
    let mut all = Vec::new();
    while let Some(done) = downloads.next().await {
        progress.add(1);
        match done {
            Ok(stored) => all.push(stored),
            Err(failure) => failures.push(failure),
        }
    }
    progress.finish();
    all.sort_by(|a, b| (&a.bucket, &a.path).cmp(&(&b.bucket, &b.path)));
    for stored in &all {
        spool.put(FILES, &key(&stored.bucket, &stored.path), &serde_json::to_string(stored)?)?;
    }
    Ok((all.len() as u64, failures))
}

fn is_current(folder: &Path, have: &Stored, listed: &Listed) -> bool {
    let there = fs::metadata(folder.join(&have.local)).is_ok_and(|metadata| metadata.len() == have.size);
    there && have.etag == listed.etag
}

async fn buckets(source: &Supabase) -> anyhow::Result<Vec<String>> {
    let answer = source.http.expect(&source.get("/storage/v1/bucket")).await.context("listing the buckets")?;
    let buckets: Vec<Value> = answer.json()?;
    Ok(buckets
        .iter()
        .filter_map(|bucket| Some(bucket.get("name").or(bucket.get("id"))?.as_str()?.to_owned()))
        .collect())
}

/// All files of a bucket: by list-v2, else, with an older service, folder by folder.
async fn list(source: &Supabase, bucket: &str, into: &mut Vec<Listed>) -> anyhow::Result<()> {
    let mut cursor = Value::Null;
    loop {
        let mut body = json!({"prefix": "", "limit": PAGE, "with_delimiter": false});
        if cursor.is_string() {
            body["cursor"] = cursor;
        }
        let target = format!("/storage/v1/object/list-v2/{}", encode(bucket, ""));
        let answer = source.http.call(&source.post(&target, body.to_string())).await?;
        if matches!(answer.status, 400 | 404 | 405) {
            return list_folders(source, bucket, into).await;
        }
        ensure!(answer.is_success(), "{target} answered {}: {}", answer.status, answer.excerpt());
        let page: Value = answer.json()?;
        for object in page["objects"].as_array().into_iter().flatten() {
            let path = object["key"].as_str().or(object["name"].as_str());
            into.push(listed(bucket, path.context("an object without a name")?, object));
        }
        cursor = page["nextCursor"].clone();
        if page["hasNext"].as_bool() == Some(false) || !cursor.is_string() {
            return Ok(());
        }
    }
}

async fn list_folders(source: &Supabase, bucket: &str, into: &mut Vec<Listed>) -> anyhow::Result<()> {
    let mut folders = vec![String::new()];
    while let Some(prefix) = folders.pop() {
        for page in 0.. {
            let order = json!({"column": "name", "order": "asc"});
            let body = json!({"prefix": prefix, "limit": PAGE, "offset": page * PAGE, "sortBy": order});
            let target = format!("/storage/v1/object/list/{}", encode(bucket, ""));
            let objects: Vec<Value> = source.http.expect(&source.post(&target, body.to_string())).await?.json()?;
            for object in &objects {
                let name = object["name"].as_str().context("an object without a name")?;
                let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
                // Folders have no id.
                if object["id"].is_null() { folders.push(path) } else { into.push(listed(bucket, &path, object)) }
            }
            if objects.len() < PAGE {
                break;
            }
        }
    }
    Ok(())
}

fn listed(bucket: &str, path: &str, object: &Value) -> Listed {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    Listed {
        bucket: bucket.to_owned(),
        path: path.to_owned(),
        etag: text(&object["metadata"]["eTag"]),
        mime: text(&object["metadata"]["mimetype"]),
        created_at: text(&object["created_at"]),
    }
}

async fn download(source: &Supabase, folder: &Path, file: &Listed) -> anyhow::Result<Stored> {
    let local = local(&file.bucket, &file.path);
    let path = folder.join(&local);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let call = source.get(&format!(
        "/storage/v1/object/authenticated/{}/{}",
        encode(&file.bucket, ""),
        encode(&file.path, "/")
    ));
    for attempt in 1.. {
        match fetch(source, &call, &path).await {
            Ok((size, sha256)) => {
                let Listed { bucket, path, etag, mime, created_at } = file.clone();
                return Ok(Stored { bucket, path, size, sha256, etag, mime, created_at, local });
            }
            Err(error) if attempt >= ATTEMPTS || error.downcast_ref::<Refused>().is_some() => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(250 << attempt)).await,
        }
    }
    bail!("unreachable: the loop returns")
}

/// The service's refusal, which another attempt would not change.
#[derive(Debug, thiserror::Error)]
#[error("the download was refused with {0}: {1}")]
struct Refused(u16, String);

/// Streams the answer to a temporary file, which gets its name when whole.
async fn fetch(source: &Supabase, call: &Call, path: &Path) -> anyhow::Result<(u64, String)> {
    let response = source.http.open(call).await?;
    let status = response.status().as_u16();
    let expected: Option<u64> =
        response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    if status != 200 {
        let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).chars().take(200).collect();
        if status == 429 || status >= 500 {
            bail!("answered {status}: {text}");
        }
        return Err(Refused(status, text).into());
    }
    let part = PathBuf::from(format!("{}.part", path.display()));
    let mut out = document::private(&part)?;
    let (mut context, mut size) = (digest::Context::new(&digest::SHA256), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the download broke off")?;
        if let Some(data) = frame.data_ref() {
            context.update(data);
            size += data.len() as u64;
            out.write_all(data)?;
        }
    }
    ensure!(expected.is_none_or(|expected| expected == size), "the download has {size} bytes of {expected:?}");
    fs::rename(&part, path)?;
    Ok((size, hex::encode(context.finish().as_ref())))
}

/// A path below the export's directory: escaped, so that no name leads elsewhere.
fn local(bucket: &str, path: &str) -> String {
    let segment = |text: &str| match text {
        "" => "%".to_owned(),
        "." | ".." => text.replace('.', "%2E"),
        _ => {
            let name = encode(text, " ");
            if name.len() > 200 { super::ids::sha256_hex(text.as_bytes()) } else { name }
        }
    };
    let segments: Vec<String> = path.split('/').map(segment).collect();
    format!("files/{}/{}", segment(bucket), segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        assert_eq!(local("b", "../../etc/passwd"), "files/b/%2E%2E/%2E%2E/etc/passwd");
        assert_eq!(local("..", "/a//b"), "files/%2E%2E/%/a/%/b");
        assert_eq!(local("b", "кот.png"), "files/b/%D0%BA%D0%BE%D1%82.png");
    }
}
