use clap::{CommandFactory, Parser};
use confab_common::process::Settings;

use super::*;

fn with(arguments: &[&str]) -> anyhow::Result<Program> {
    let program = Program::try_parse_from(["confab-auth"].iter().chain(arguments))?;
    program.check().map(|()| program)
}

#[test]
fn defaults() {
    Program::command().debug_assert();
    // The gateway's default for this service.
    assert_eq!(with(&[]).unwrap().common.listen.port(), 50051);
}

#[test]
fn wrong_settings_are_rejected_at_start() {
    let postgres = "--auth-store=postgres://localhost/confab";
    for bad in [
        &["--auth-store=mysql://x"][..],
        &["--bus=amqp://x"],
        &["--signing-key=hunter2"],
        &["--token-ttl=0s"],
        &["--token-ttl=8761h"],
        // Every replica needs the same key.
        &[postgres],
    ] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
    assert!(with(&[postgres, "--signing-key=nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="]).is_ok());
    assert!(with(&["migrate", postgres]).is_ok(), "updating the schema needs no key");
}
