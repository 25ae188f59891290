//! Runs a command beside the embedded program.

use std::process::ExitCode;

use clap::Parser;
use confab_tests::command::{self, Beside};
use confab_tests::embedded::Embedded;
use confab_tests::server_keys;

/// Runs a command beside the embedded program, and exits with the command's status
///
/// CONFAB_URL gives the command the address, and CONFAB_KEY a server key with all scopes. Afterwards the program is stopped and its data is removed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    command: Beside,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { command } = Arguments::parse();
    let embedded = Embedded::start(&[]).await?;
    let key = server_keys::of_embedded(&embedded, server_keys::ALL).await?.token;
    let mut running = command.spawn(&[("CONFAB_URL", embedded.url()), ("CONFAB_KEY", key)])?;
    Ok(command::status(running.wait().await?))
}
