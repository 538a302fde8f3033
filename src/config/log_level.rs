//! Filter of log lines: `info`, or `info,konvert_gateway::relay=debug`.

use super::value::{Value, quote};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const LEVELS: &str = "error, warn, info, debug, trace or off";

/// Directives of `tracing`, with a mandatory level. `tracing` takes an unknown word for a module's name, and a mistyped
/// level would therefore silence the remaining modules.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLevel(String);

impl LogLevel {
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Value for LogLevel {
    fn parse(text: &str) -> Result<Self, String> {
        let mut text = text.to_owned();
        // Within brackets, commas separate fields of spans, not directives.
        if !text.contains(['[', '{']) {
            let directives: Vec<&str> = text.split(',').map(str::trim).collect();
            for directive in &directives {
                let level = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
                if level.is_empty() || level.parse::<LevelFilter>().is_err() {
                    return Err(format!(
                        "{level:?} is not a log level: {LEVELS}; per module: info,konvert_gateway::relay=debug"
                    ));
                }
            }
            text = directives.join(",");
        }
        EnvFilter::try_new(&text).map_err(|error| format!("{error}; levels are {LEVELS}"))?;
        Ok(Self(text))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_has_a_level() {
        for good in
            ["info", "WARN", "off", "info,konvert_gateway::relay=debug", "warn, hyper=off", "info,[request{id}]=debug"]
        {
            assert!(LogLevel::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "warning",
            "verbose",
            "info,warning",
            "konvert_gateway",
            "info,konvert_gateway::relay=verbose",
            "info,",
            "",
        ] {
            let why = LogLevel::parse(bad).unwrap_err();
            assert!(why.contains(LEVELS), "{bad}: {why}");
        }
    }
}
