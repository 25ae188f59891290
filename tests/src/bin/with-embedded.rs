//! `with-embedded COMMAND…`: runs a command beside the embedded program, which it finds by `CONFAB_URL`, and ends with its status.
//! The program and its data are gone afterwards.

use std::process::ExitCode;

use anyhow::Context;
use confab_tests::embedded::Embedded;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("usage: with-embedded COMMAND…")?;
    let embedded = Embedded::start(&[]).await?;
    let mut command = tokio::process::Command::new(&program);
    command.args(words).env("CONFAB_URL", embedded.url()).kill_on_drop(true);
    let status = command.status().await.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
