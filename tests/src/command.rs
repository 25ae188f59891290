//! Runs a command beside other processes.

use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use tokio::process::{Child, Command};

/// The command, given as a program's last arguments
#[derive(Debug, clap::Args)]
pub struct Beside {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Beside {
    /// Runs the command with these additional variables. Dropping the handle kills it.
    ///
    /// # Errors
    /// When the program does not exist.
    pub fn spawn(&self, environment: &[(&str, String)]) -> anyhow::Result<Child> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot run {}", program.display()))
    }
}

/// Returns the exit status of a wrapper, from that of its command; a signal is a failure.
pub fn status(ended: ExitStatus) -> ExitCode {
    ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
