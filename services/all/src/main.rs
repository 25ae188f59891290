//! Confab in one process: every service and the gateway, connected by in-process transports.

#[cfg(test)]
mod callers;
mod config;
mod moving;
mod run;
#[cfg(test)]
mod settings;

fn main() -> std::process::ExitCode {
    confab_common::process::run(run::run)
}
