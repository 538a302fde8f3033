//! Password hashes of `auth.users`: from PostgreSQL, a CSV or JSON of the SQL editor, or a `pg_dump` of the table. The
//! admin API has none.

use anyhow::{Context, bail};
use konvert_gateway::tls::Tls;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The query for the SQL editor; its result can be downloaded as CSV or JSON.
pub const QUERY: &str = "SELECT id, encrypted_password FROM auth.users";

/// What can become of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Works here as it is.
    Bcrypt,
    Argon2,
    FirebaseScrypt,
    /// Encrypted at rest by the old project.
    Encrypted,
    /// The account never had a password, as after a login with Google or a magic link.
    Empty,
    Other,
}

impl Class {
    pub fn of(hash: &str) -> Self {
        match hash {
            "" => Self::Empty,
            _ if is_bcrypt(hash) => Self::Bcrypt,
            _ if hash.starts_with("$argon2") => Self::Argon2,
            _ if hash.starts_with("$fbscrypt$") => Self::FirebaseScrypt,
            _ if hash.starts_with('{') => Self::Encrypted,
            _ => Self::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bcrypt => "bcrypt: the old password works",
            Self::Argon2 => "argon2: first login through the old project, or a reset link",
            Self::FirebaseScrypt => "firebase scrypt: first login through the old project, or a reset link",
            Self::Encrypted => "encrypted at rest: first login through the old project, or a reset link",
            Self::Empty => "no password: a reset link, or a login with another provider",
            Self::Other => "unknown hash: first login through the old project, or a reset link",
        }
    }
}

/// `$2a$`, `$2b$`, `$2x$`, `$2y$` with a cost of 4 to 31 and 53 characters.
fn is_bcrypt(hash: &str) -> bool {
    let Some(rest) = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix)) else {
        return false;
    };
    let Some((cost, body)) = rest.split_once('$') else { return false };
    cost.len() == 2
        && cost.parse::<u8>().is_ok_and(|cost| (4..=31).contains(&cost))
        && body.len() == 53
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

/// Hashes by account id, from a file in any of the known forms.
pub fn from_file(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = parse(&text).with_context(|| format!("reading password hashes from {}", path.display()))?;
    if found.is_empty() {
        bail!("{} has no password hashes; download the result of: {QUERY}", path.display());
    }
    Ok(found)
}

pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('[') || start.starts_with('{') {
        return from_json(start);
    }
    if let Some(found) = from_dump(text)? {
        return Ok(found);
    }
    from_csv(start)
}

fn from_json(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let value: Value = serde_json::from_str(text)?;
    let rows = value.get("users").unwrap_or(&value).as_array().context("JSON, but no array of users")?;
    let of = |row: &Value| {
        let id = row.get("id")?.as_str()?.to_owned();
        Some((id, row.get("encrypted_password").and_then(Value::as_str).unwrap_or("").to_owned()))
    };
    Ok(rows.iter().filter_map(of).collect())
}

/// `COPY auth.users (…) FROM stdin;` with its rows up to `\.`; `None` if the text has no such statement.
fn from_dump(text: &str) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let mut lines = text.lines();
    let Some(head) =
        lines.find(|line| line.starts_with("COPY ") && line.contains("users") && line.contains("FROM stdin"))
    else {
        if text.contains("INSERT INTO auth.users") {
            bail!("this dump has INSERT statements; dump again without --inserts");
        }
        return Ok(None);
    };
    let columns = head
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .context("the COPY statement lists no columns")?
        .0;
    let columns: Vec<&str> = columns.split(',').map(|name| name.trim().trim_matches('"')).collect();
    let at = |name: &str| {
        columns.iter().position(|column| *column == name).with_context(|| format!("the dump has no column {name}"))
    };
    let (id, hash) = (at("id")?, at("encrypted_password")?);
    let mut found = BTreeMap::new();
    for line in lines.take_while(|line| *line != "\\.") {
        let fields: Vec<&str> = line.split('\t').collect();
        if let (Some(id), Some(hash)) = (fields.get(id), fields.get(hash)) {
            let hash = if *hash == "\\N" { String::new() } else { hash.replace("\\\\", "\\") };
            found.insert((*id).to_owned(), hash);
        }
    }
    Ok(Some(found))
}

fn from_csv(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut rows = csv(text).into_iter();
    let head = rows.next().context("the file is empty")?;
    let at = |name: &str| {
        head.iter()
            .position(|column| column.trim() == name)
            .with_context(|| format!("the CSV has no column {name}; it needs the result of: {QUERY}"))
    };
    let (id, hash) = (at("id")?, at("encrypted_password")?);
    Ok(rows
        .filter_map(|row| Some((row.get(id)?.trim().to_owned(), row.get(hash)?.clone())))
        .filter(|(id, _)| !id.is_empty())
        .collect())
}

/// RFC 4180: fields in quotes may hold commas, line breaks and doubled quotes.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// Hashes from PostgreSQL; `url` as Supabase shows it, `postgresql://…`. TLS is used if the server offers it.
pub async fn from_postgres(url: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let config: tokio_postgres::Config = url.parse().context("the address of PostgreSQL is not valid")?;
    let tls = Tls::new(None, None, "SSL_CERT_FILE").or_else(|_| Tls::trusting_nobody())?;
    let connector = tokio_postgres_rustls::MakeRustlsConnect::new((*tls.config()).clone());
    let (client, connection) = config.connect(connector).await.context("connecting to PostgreSQL")?;
    let driver = tokio::spawn(connection);
    let rows = client.query("SELECT id::text, coalesce(encrypted_password, '') FROM auth.users", &[]).await;
    let rows = rows.context("reading auth.users; does the login have the right to read this table?")?;
    drop(client);
    driver.await.context("the connection to PostgreSQL")?.context("the connection to PostgreSQL")?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

    #[test]
    fn every_form_of_the_file_gives_the_same_hashes() {
        let dump = format!(
            "SET x = 1;\nCOPY auth.users (instance_id, id, email, encrypted_password) FROM stdin;\n0\tu1\ta@x\t{HASH}\n0\tu2\tb@x\t\\N\n\\.\n"
        );
        let csv = format!("email,id,encrypted_password\r\n\"a,\"\"b\"\"@x\",u1,{HASH}\r\nb@x,u2,\r\n");
        let json = format!(r#"[{{"id":"u1","encrypted_password":"{HASH}"}},{{"id":"u2","encrypted_password":null}}]"#);
        for text in [dump, csv, json] {
            let found = parse(&text).unwrap();
            assert_eq!(found.len(), 2, "{text}");
            assert_eq!((found["u1"].as_str(), found["u2"].as_str()), (HASH, ""), "{text}");
        }
        assert!(parse("INSERT INTO auth.users VALUES (1);").is_err());
    }

    #[test]
    fn hashes_are_classed() {
        assert_eq!(Class::of(HASH), Class::Bcrypt);
        assert_eq!(Class::of(&HASH[..59]), Class::Other);
        assert_eq!(Class::of("$argon2id$v=19$m=16,t=2,p=1$x$y"), Class::Argon2);
        assert_eq!(Class::of("$fbscrypt$v=1,n=14$x"), Class::FirebaseScrypt);
        assert_eq!(Class::of("{\"key_id\":\"k\"}"), Class::Encrypted);
        assert_eq!(Class::of(""), Class::Empty);
    }
}
