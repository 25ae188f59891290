//! Logs, metrics and traces.

mod json;
pub mod trace;

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::json::Json;
use crate::config::{CommonConfig, LogFormat};
use crate::metrics;

/// Returns whether each directive has a level. A single word that is not a level would be parsed as a target and turn
/// off all other logging.
fn names_a_level(directives: &str) -> bool {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    directives
        .split(',')
        .map(str::trim)
        .all(|directive| directive.is_empty() || directive.contains(['=', '[']) || is_level(directive))
}

/// Starts logging to standard error and installs the metrics recorder. Must be called once;
/// [`process::run`](crate::process::run) calls it.
///
/// # Errors
/// When the log filter cannot be parsed.
pub fn init(config: &CommonConfig) -> anyhow::Result<()> {
    // Migrations and credentials are logged at each start, and frames and statements contain users' messages.
    // CONFAB_LOG can enable each by name.
    let filter = format!("aws_config=warn,refinery_core=warn,tokio_postgres=warn,tungstenite=warn,{}", config.log);
    let filter = names_a_level(&config.log).then(|| EnvFilter::try_new(filter).ok()).flatten();
    let filter = filter.with_context(|| {
        let levels = "off, error, warn, info, debug, trace, or directives such as info,confab_gateway=debug";
        format!("CONFAB_LOG: {:?} is not a level; use {levels}", config.log)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).map_event_format(Json).init(),
    }
    metrics::install()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_without_a_level_is_rejected() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,confab_gateway=debug",
            "confab=trace",
            "info, hyper=off",
            "[connect]=debug",
            "",
        ] {
            assert!(names_a_level(good), "{good}");
        }
        for bad in ["verbose", "inf", "info,loud", "confab_gateway"] {
            assert!(!names_a_level(bad), "{bad}");
        }
    }
}
