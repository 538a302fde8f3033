//! Files: their records and names in PocketBase, and the addresses in messages that name them.

use super::filter::Filter;
use super::http::decode;
use super::ids::{compact, derived, sha256_hex, target};
use super::ledger::Ledger;
use super::people::Person;
use super::plan::Plan;
use super::progress::Progress;
use super::spool::key_hash;
use super::storage::{self, Stored};
use super::target::Pocket;
use anyhow::Context;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const AT_ONCE: usize = 2;
/// Limits of the collections; an avatar above goes among the files.
const AVATAR_MAX: u64 = 5 << 20;
const FILE_MAX: u64 = 50 << 20;
const AVATAR_TYPES: &[&str] = &["image/jpeg", "image/png", "image/webp", "image/gif"];

/// A file's place in PocketBase.
#[derive(Clone)]
pub struct Placed {
    pub stored: Stored,
    /// "files", or "users" and "rooms" for avatars.
    pub kind: &'static str,
    pub id: String,
    pub owner: String,
    pub path: String,
    /// With a part that cannot be guessed: whoever knows a file's address may read the file.
    pub name: String,
}

#[derive(Default)]
pub struct FilePlan {
    pub files: Vec<Placed>,
    /// Files without an owner among the users.
    pub orphans: Vec<Stored>,
    urls: HashMap<String, String>,
}

/// `avatars`: kind, record and the old address or path of each avatar.
pub fn plan(
    rows: &[Value],
    avatars: &[(&'static str, String, String)],
    users: &HashMap<u128, Person>,
    salt: &str,
    public_url: &str,
) -> FilePlan {
    let all: Vec<Stored> = rows.iter().filter_map(|row| serde_json::from_value(row.clone()).ok()).collect();
    let by_key: HashMap<String, usize> =
        all.iter().enumerate().map(|(i, file)| (format!("{}/{}", file.bucket, file.path), i)).collect();
    let by_path: HashMap<&str, usize> = all.iter().enumerate().map(|(i, file)| (file.path.as_str(), i)).collect();
    let mut owners: HashMap<usize, (&'static str, String)> = HashMap::new();
    for (kind, id, address) in avatars {
        let found = address_of(address).and_then(|key| by_key.get(&key)).or_else(|| by_path.get(address.as_str()));
        if let Some(index) = found {
            let file = &all[*index];
            if file.size <= AVATAR_MAX && AVATAR_TYPES.contains(&file.mime.as_str()) {
                owners.entry(*index).or_insert((kind, id.clone()));
            }
        }
    }
    let mut plan = FilePlan::default();
    let mut taken = HashSet::new();
    for (index, stored) in all.iter().enumerate() {
        let (first, rest) = stored.path.split_once('/').unwrap_or(("", &stored.path));
        let name = name(stored, salt);
        let (kind, id, owner) = match owners.get(&index) {
            Some((kind, id)) => (*kind, id.clone(), id.clone()),
            None => match users.get(&compact(&target(first))) {
                Some(person) => ("files", derived("file", &[&stored.bucket, &stored.path]), person.id.clone()),
                None => {
                    plan.orphans.push(stored.clone());
                    continue;
                }
            },
        };
        let path = if taken.insert((owner.clone(), rest.to_owned())) {
            rest.to_owned()
        } else {
            format!("{}/{rest}", stored.bucket)
        };
        let url = format!("{}/api/files/{kind}/{id}/{name}", public_url.trim_end_matches('/'));
        plan.urls.insert(format!("{}/{}", stored.bucket, stored.path), url);
        plan.files.push(Placed { stored: stored.clone(), kind, id, owner, path, name });
    }
    plan
}

/// The old name's beginning, and a hash that depends on the content and the export's secret.
fn name(stored: &Stored, salt: &str) -> String {
    let base = stored.path.rsplit('/').next().unwrap_or("file");
    let (stem, extension) = base.rsplit_once('.').unwrap_or((base, ""));
    let clean = |text: &str, max: usize| text.chars().filter(char::is_ascii_alphanumeric).take(max).collect::<String>();
    let secret = sha256_hex(format!("{salt}\n{}\n{}\n{}", stored.bucket, stored.path, stored.sha256).as_bytes());
    let extension = clean(extension, 10).to_lowercase();
    let dot = if extension.is_empty() { "" } else { "." };
    format!("f{}_{}{dot}{extension}", clean(stem, 60), &secret[..20])
}

/// `bucket/path` of a Storage address, whatever project it names.
fn address_of(text: &str) -> Option<String> {
    if !text.starts_with("http") || text.contains(char::is_whitespace) {
        return None;
    }
    let (_, rest) = text.split_once("/storage/v1/object/").or_else(|| text.split_once("/storage/v1/render/image/"))?;
    let rest = ["sign/", "public/", "authenticated/"].iter().find_map(|kind| rest.strip_prefix(kind)).unwrap_or(rest);
    Some(decode(rest.split(['?', '#']).next()?))
}

impl FilePlan {
    /// The new address, if the content is the address of an exported file.
    pub fn rewritten(&self, content: &str) -> Option<String> {
        self.urls.get(&address_of(content)?).cloned()
    }
}

/// The placed files that the filter wants.
pub fn wanted<'p>(plan: &'p Plan, filter: &Filter) -> Vec<&'p Placed> {
    let takes = |file: &&Placed| {
        let key = storage::key(&file.stored.bucket, &file.stored.path);
        filter.changed.as_ref().is_none_or(|changed| changed.contains(&key_hash(&key)))
            && filter.only.as_ref().is_none_or(|only| only.owns(&file.owner))
    };
    plan.files.files.iter().filter(takes).collect()
}

/// Uploads what PocketBase does not have. Returns the numbers of files and bytes sent.
pub async fn import(
    plan: &Plan,
    pocket: &Pocket,
    filter: &Filter,
    ledger: &Arc<Mutex<Ledger>>,
) -> anyhow::Result<(u64, u64)> {
    let is_whole = filter.changed.is_none() && filter.only.is_none();
    for stored in plan.files.orphans.iter().filter(|_| is_whole) {
        let key = storage::key(&stored.bucket, &stored.path);
        ledger.lock().reject(
            "files",
            &key,
            "the first folder of the path is no user; the file stays in the export",
            None,
        );
    }
    let files = wanted(plan, filter);
    let mut progress = Progress::new("files", files.len() as u64);
    let mut there = HashSet::new();
    for chunk in files.chunks(500) {
        for kind in ["files", "users", "rooms"] {
            let field = if kind == "files" { "file" } else { "avatar" };
            let ids: Vec<&str> = chunk.iter().filter(|file| file.kind == kind).map(|file| file.id.as_str()).collect();
            for row in pocket.read(kind, &ids, &["id", field]).await? {
                there.insert((
                    row["id"].as_str().unwrap_or("").to_owned(),
                    row[field].as_str().unwrap_or("").to_owned(),
                ));
            }
        }
    }
    let mut uploads = futures_util::stream::iter(files.into_iter().map(|file| {
        let is_there = there.contains(&(file.id.clone(), file.name.clone()));
        async move { (file, if is_there { Ok(None) } else { upload(plan, pocket, file).await }) }
    }))
    .buffer_unordered(AT_ONCE);
    let (mut sent, mut bytes) = (0, 0);
    while let Some((file, result)) = uploads.next().await {
        progress.add(1);
        let mut ledger = ledger.lock();
        match result {
            Ok(None) => ledger.written("files", 0, 0, 1),
            Ok(Some(size)) => {
                sent += 1;
                bytes += size;
                ledger.written("files", 1, 0, 0);
            }
            Err(error) => {
                ledger.kinds.entry("files".to_owned()).or_default().rejected += 1;
                ledger.reject(
                    "files",
                    &storage::key(&file.stored.bucket, &file.stored.path),
                    &format!("{error:#}"),
                    None,
                );
            }
        }
    }
    progress.finish();
    Ok((sent, bytes))
}

async fn upload(plan: &Plan, pocket: &Pocket, file: &Placed) -> anyhow::Result<Option<u64>> {
    anyhow::ensure!(
        file.stored.size <= FILE_MAX,
        "the file has {} bytes; PocketBase takes {FILE_MAX}",
        file.stored.size
    );
    let path = plan.document.folder.join(&file.stored.local);
    let content = std::fs::read(&path).with_context(|| format!("cannot read {}; export again", path.display()))?;
    anyhow::ensure!(
        sha256_hex(&content) == file.stored.sha256,
        "{} does not match its checksum; export again",
        path.display()
    );
    let created =
        super::dates::parse(&json!(file.stored.created_at)).unwrap_or_else(|| plan.document.header.exported_at.clone());
    let meta = json!({
        "kind": file.kind, "id": file.id, "owner": file.owner, "path": file.path, "name": file.name, "created": created,
    });
    let size = content.len() as u64;
    pocket.file(&meta, content).await?;
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn addresses_of_any_project_and_kind_name_bucket_and_path() {
        for text in [
            "https://a.supabase.co/storage/v1/object/sign/make-1-uploads/u/1%20a.png?token=x",
            "http://1.2.3.4:8000/storage/v1/object/public/make-1-uploads/u/1 a.png".replace(' ', "%20").as_str(),
        ] {
            assert_eq!(address_of(text).as_deref(), Some("make-1-uploads/u/1 a.png"));
        }
        assert_eq!(address_of("look: https://a/storage/v1/object/sign/b/c"), None);
        assert_eq!(address_of("{\"version\":\"v1\"}"), None);
    }
}
