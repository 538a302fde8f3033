//! Kinds of setting values, with parsing from text and printing.

use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// A kind of setting value.
pub trait Value: Sized {
    /// Parses a value. The error names a correct form.
    fn parse(text: &str) -> Result<Self, String>;
    /// Prints the value as TOML, with secrets masked.
    fn show(&self) -> String;
}

pub fn quote(text: &str) -> String {
    // A JSON string is a TOML string, except for DEL: the only control character that JSON allows unescaped.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
    }
    fn show(&self) -> String {
        quote(self)
    }
}

impl Value for SecretString {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
    fn show(&self) -> String {
        quote(if self.expose_secret().is_empty() { "" } else { "********" })
    }
}

impl Value for usize {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("must be at least 1".into()),
            // TOML and Redis have no larger numbers.
            Ok(number) if i64::try_from(number).is_ok() => Ok(number),
            _ => Err(format!("{text:?} is not a whole number up to {}", i64::MAX)),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A limit; 0 stands for no limit, whereas a plain `usize` must be at least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(pub usize);

impl Value for Limit {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is not a whole number; 0 stands for no limit"))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A number whose default is computed at the start.
impl Value for Option<usize> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { usize::parse(text).map(Some) }
    }
    fn show(&self) -> String {
        self.map_or_else(|| quote(""), |number| number.to_string())
    }
}

/// Bytes of a request's head; at least 8192, the minimum of the HTTP library.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSize(pub usize);

impl Value for HeadSize {
    fn parse(text: &str) -> Result<Self, String> {
        match usize::parse(text)? {
            bytes @ 8192.. => Ok(Self(bytes)),
            _ => Err("must be at least 8192".into()),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        match milliseconds(text, 1000)? {
            0 => Err("must be at least 1s".into()),
            // A year at most: with longer times, arithmetic on instants could overflow.
            time if time.is_multiple_of(1000) && time <= YEAR => Ok(Duration::from_millis(time)),
            _ => Err(format!("{text:?} is not a whole number of seconds up to a year")),
        }
    }
    fn show(&self) -> String {
        quote(&with_unit(*self))
    }
}

/// A year, in milliseconds.
const YEAR: u64 = 31_536_000_000;
/// Units of durations, in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a number with a unit, as `25s`; without a unit, the number counts `plain` milliseconds.
fn milliseconds(text: &str, plain: u64) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => Some(plain),
        name => UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor),
    };
    let time = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    time.ok_or_else(|| {
        let plain = if plain == 1 { "milliseconds" } else { "seconds" };
        format!(
            "{text:?} is not a duration such as 25s, with one of the units ms, s, m, h or d, or a number of {plain}"
        )
    })
}

/// The shortest form, in the largest unit that divides the time.
fn with_unit(time: Duration) -> String {
    let time = time.as_millis() as u64;
    let (unit, factor) =
        UNITS.iter().rev().find(|(_, factor)| time > 0 && time.is_multiple_of(*factor)).unwrap_or(&UNITS[1]);
    format!("{}{unit}", time / factor)
}

/// A time in seconds that may be 0, whereas a [`Duration`] must be at least a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay(pub Duration);

impl Value for Delay {
    fn parse(text: &str) -> Result<Self, String> {
        if milliseconds(text, 1000)? == 0 { Ok(Self(Duration::ZERO)) } else { Duration::parse(text).map(Self) }
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// A time of 0 to 100 milliseconds, too short for users to notice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Milliseconds(pub Duration);

impl Value for Milliseconds {
    fn parse(text: &str) -> Result<Self, String> {
        match milliseconds(text, 1)? {
            time @ 0..=100 => Ok(Self(Duration::from_millis(time))),
            _ => Err(format!("{text:?} is more than 100ms")),
        }
    }
    fn show(&self) -> String {
        quote(&format!("{}ms", self.0.as_millis()))
    }
}

/// The base URL of PocketBase: `http://host[:port][/path]` or `https://…`, without a trailing slash.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpUrl(pub String);

impl HttpUrl {
    pub fn is_https(&self) -> bool {
        self.0.parse::<hyper::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
    }
}

impl Value for HttpUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let url = text.trim_end_matches('/');
        // Parsed with a slash, since routes follow. A fragment would silently swallow the routes.
        match format!("{url}/").parse::<hyper::Uri>() {
            // The error does not quote the URL, which may contain a password.
            Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => Err(
                "a user name or password in this URL would not be sent: the gateway signs its requests with `secret` \
                     instead; remove the part before the @"
                    .into(),
            ),
            Ok(uri)
                if matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.query().is_none()
                    && !url.contains('#') =>
            {
                Ok(Self(url.to_owned()))
            }
            _ => Err(format!(
                "{:?} is not a URL such as http://127.0.0.1:8090 or https://pocketbase.example.org",
                text.rsplit('@').next().unwrap_or(text)
            )),
        }
    }
    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// Maximum number of threads: more than the cores of any machine. Each thread takes memory, and far more could not be
/// started.
const THREADS_MAX: usize = 1024;

/// Number of threads; unset: computed from the number of cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threads(Option<usize>);

impl Threads {
    /// Half of the cores unless set, at least 1: a fan-out on all cores would delay the very write in PocketBase that
    /// caused the fan-out.
    pub fn count(self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.0.unwrap_or_else(|| (cores() / 2).max(1))
    }
}

impl Value for Threads {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(None)),
            _ => match usize::parse(text)? {
                count @ ..=THREADS_MAX => Ok(Self(Some(count))),
                _ => Err(format!("must be at most {THREADS_MAX}")),
            },
        }
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| quote(""), |count| count.to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
    fn show(&self) -> String {
        quote(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A set of words, separated by commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Words(Vec<String>);

impl Words {
    pub fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|w| w == word)
    }
}

impl Value for Words {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()))
    }
    fn show(&self) -> String {
        quote(&self.0.join(","))
    }
}

/// Converts a TOML value to text for [`Value::parse`].
pub fn from_toml(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Array(items) => {
            let words: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            words.map(|words| words.join(",")).ok_or_else(|| "must be an array of strings".to_owned())
        }
        _ => Err("must be a string or a whole number".to_owned()),
    }
}

/// The candidate closest to `name`, if at most `furthest` edits away.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>, furthest: usize) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= furthest)
        .map(|(_, candidate)| candidate.to_owned())
}
