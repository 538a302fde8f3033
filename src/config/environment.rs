//! `GATEWAY_…` variables: settings by name, and settings in files (`GATEWAY_SECRET_FILE`).
//!
//! Other programs set variables with the same prefix: Kubernetes for each Service whose name begins with "gateway", and
//! CGI. An unknown name is therefore an error only if the name is close to a setting's, and thus probably mistyped. The
//! remaining unknown names are ignored and listed for a warning.

use super::{Config, ConfigError, SETTINGS, value};
use std::io::Read;

const PREFIX: &str = "GATEWAY_";
const FILE: &str = "_FILE";
/// Settings whose value may come from a file, since container platforms mount secrets as files.
const IN_FILES: &[&str] = &["secret", "secret_second", "admin_token", "redis_url", "pocketbase_url"];
/// Maximum size of such a file, in bytes.
const FILE_MAX: u64 = 16 * 1024;

impl Config {
    /// Applies the settings among the variables.
    pub(super) fn set_from_environment(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (variable, text) in variables {
            match Meaning::of(variable) {
                Meaning::Setting(name) => {
                    self.set("environment", name, text).map_err(|error| named(error, variable))?;
                }
                Meaning::File(name) => {
                    let other = variable.strip_suffix(FILE).unwrap_or(variable);
                    if variables.iter().any(|(given, _)| given == other) {
                        let why = format!("{other} is set too; unset one of the two");
                        return Err(ConfigError::bad("environment", variable, &why));
                    }
                    let text = read(text).map_err(|why| ConfigError::bad("environment", variable, &why))?;
                    self.set("environment", name, &text).map_err(|error| named(error, variable))?;
                }
                Meaning::Mistyped(meant) => {
                    return Err(ConfigError::Unknown {
                        source_name: "environment".into(),
                        name: variable.clone(),
                        suggestion: Some(meant),
                    });
                }
                Meaning::Foreign | Meaning::Unknown => {}
            }
        }
        Ok(())
    }
}

/// Names of variables that begin with `GATEWAY_` and belong neither to this program nor to Kubernetes or CGI.
pub fn unknown_variables(variables: &[(String, String)]) -> Vec<&str> {
    let names = variables.iter().map(|(variable, _)| variable.as_str());
    names.filter(|variable| matches!(Meaning::of(variable), Meaning::Unknown)).collect()
}

enum Meaning {
    Setting(&'static str),
    /// The path of a file with the setting's value.
    File(&'static str),
    /// Probably a mistyped form of this variable.
    Mistyped(String),
    /// A variable that certainly belongs to another program.
    Foreign,
    Unknown,
}

impl Meaning {
    fn of(variable: &str) -> Self {
        let Some(name) = variable.strip_prefix(PREFIX) else { return Self::Foreign };
        let lower = name.to_lowercase();
        let find = |name: &str| SETTINGS.iter().map(|setting| setting.name).find(|setting| *setting == name);
        if let Some(setting) = find(&lower) {
            return Self::Setting(setting);
        }
        if let Some(setting) =
            variable.strip_suffix(FILE).and_then(|_| IN_FILES.iter().find(|it| lower == format!("{it}_file")))
        {
            return Self::File(setting);
        }
        if is_foreign(name) {
            return Self::Foreign;
        }
        let files = IN_FILES.iter().map(|name| format!("{name}_file"));
        let candidates: Vec<String> = SETTINGS.iter().map(|setting| setting.name.to_owned()).chain(files).collect();
        // Fewer edits for short names, which are similar by chance.
        let near = value::nearest(&lower, candidates.iter().map(String::as_str), 3.min(lower.chars().count() / 3));
        near.map_or(Self::Unknown, |name| Self::Mistyped(format!("{PREFIX}{}", name.to_uppercase())))
    }
}

/// True for the hooks' `GATEWAY_URL`, CGI's `GATEWAY_INTERFACE`, and the variables that Kubernetes sets for a Service
/// whose name begins with "gateway".
fn is_foreign(name: &str) -> bool {
    let name = format!("_{name}");
    matches!(name.as_str(), "_URL" | "_INTERFACE")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || is_port_of_service(&name)
}

/// True for `…_PORT_8000_TCP` and the related variables of Kubernetes.
fn is_port_of_service(name: &str) -> bool {
    let ending =
        |name: &str, endings: &[&str]| endings.iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    let name = ending(name, &["_PROTO", "_PORT", "_ADDR"]).unwrap_or_else(|| name.to_owned());
    ending(&name, &["_TCP", "_UDP", "_SCTP"]).is_some_and(|name| {
        let begin = name.trim_end_matches(|c: char| c.is_ascii_digit());
        begin.len() < name.len() && begin.ends_with("_PORT_")
    })
}

/// Reads a file's text, without a line break at the end.
fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot open {path}: {error}"))?;
    let size =
        file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot read {path}: {error}"))?;
    if size as u64 > FILE_MAX {
        return Err(format!("{path} has more than {FILE_MAX} bytes"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Puts the variable's name into an error in place of the setting's name.
fn named(error: ConfigError, variable: &str) -> ConfigError {
    match error {
        ConfigError::Bad { source_name, why, .. } => ConfigError::Bad { source_name, name: variable.into(), why },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use secrecy::ExposeSecret;
    use std::io::Write;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn variables_of_other_programs_are_left_alone() {
        let foreign = [
            ("GATEWAY_URL", "http://a"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("GATEWAY_PORT", "tcp://10.0.0.1:8000"),
            ("GATEWAY_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
            ("GATEWAY_PORT_8000_TCP_PORT", "8000"),
            ("GATEWAY_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("GATEWAY_SERVICE_HOST", "10.0.0.1"),
            ("GATEWAY_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("GATEWAY_ADMIN_SERVICE_PORT_HTTP", "8001"),
            ("GATEWAY_ADMIN_PORT", "tcp://10.0.0.1:8001"),
            ("GATEWAY_ADMIN_PORT_8001_TCP_PROTO", "tcp"),
            ("GATEWAY_LISTEN_PORT", "tcp://10.0.0.1:8001"),
        ];
        let own = foreign.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(unknown_variables(&own), Vec::<&str>::new());
        let with_secret: Vec<_> = foreign.into_iter().chain([("GATEWAY_SECRET", SECRET)]).collect();
        load(&with_secret).unwrap();
    }

    #[test]
    fn a_mistyped_setting_is_an_error_and_any_other_name_a_warning() {
        for (name, meant) in [
            ("GATEWAY_LISTN", "GATEWAY_LISTEN"),
            ("GATEWAY_HISTROY_SIZE", "GATEWAY_HISTORY_SIZE"),
            ("GATEWAY_SECRET_FIEL", "GATEWAY_SECRET_FILE"),
        ] {
            let error = load(&[("GATEWAY_SECRET", SECRET), (name, "x")]).unwrap_err();
            assert!(error.contains(&format!("`{name}`")) && error.contains(&format!("`{meant}`")), "{error}");
        }
        let unknown = [("GATEWAY_TEAM", "blue"), ("GATEWAY_SECRET", SECRET)];
        load(&unknown).unwrap();
        assert_eq!(unknown_variables(&unknown.map(|(k, v)| (k.to_owned(), v.to_owned()))), ["GATEWAY_TEAM"]);
    }

    #[test]
    fn secrets_and_urls_come_from_files() {
        let (secret, redis) = (file(&format!("{SECRET}\n")), file("redis://:hunter2@a:1\r\n"));
        let (secret, redis) = (secret.path().to_str().unwrap(), redis.path().to_str().unwrap());
        let config = load(&[("GATEWAY_SECRET_FILE", secret), ("GATEWAY_REDIS_URL_FILE", redis)]).unwrap();
        assert_eq!(config.secret.expose_secret(), SECRET);
        assert_eq!(config.redis_url.unwrap().expose(), "redis://:hunter2@a:1");
        let both = load(&[("GATEWAY_SECRET_FILE", secret), ("GATEWAY_SECRET", SECRET)]).unwrap_err();
        assert!(both.contains("GATEWAY_SECRET_FILE") && both.contains("unset one"), "{both}");
        let missing = load(&[("GATEWAY_SECRET_FILE", "/does/not/exist")]).unwrap_err();
        assert!(missing.contains("GATEWAY_SECRET_FILE") && missing.contains("/does/not/exist"), "{missing}");
        let endless = load(&[("GATEWAY_SECRET_FILE", "/dev/zero")]).unwrap_err();
        assert!(endless.contains("more than"), "{endless}");
    }
}
