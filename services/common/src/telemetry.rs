//! Logs, metrics and traces.

mod json;
pub mod trace;

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use self::json::Json;
use crate::config::{CommonConfig, LogFormat};
use crate::metrics;

/// Starts logging to standard error and the metrics recorder. Called once, by [`process::run`](crate::process::run).
///
/// # Errors
/// When the log filter cannot be parsed.
pub fn init(config: &CommonConfig) -> anyhow::Result<()> {
    // Migrations and credentials found at each start are not news, and frames and statements contain messages;
    // CONFAB_LOG can enable each by name.
    let filter = EnvFilter::try_new(format!("aws_config=warn,refinery_core=warn,tokio_postgres=warn,tungstenite=warn,{}", config.log))
        .with_context(|| format!("CONFAB_LOG: {:?} is not a filter", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).map_event_format(Json).init(),
    }
    metrics::install()
}
