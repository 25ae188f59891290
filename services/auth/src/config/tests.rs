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
        &["--refresh-ttl=0s"],
        &["--refresh-ttl=8761h"],
        &["--signup=closed"],
        &["--room-url=nowhere"],
        // Every replica needs the same key.
        &[postgres],
    ] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
    assert!(with(&[postgres, "--signing-key=nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="]).is_ok());
    assert!(with(&["migrate", postgres]).is_ok(), "updating the schema needs no key");
}

#[test]
fn settings_are_read() {
    let config = with(&[]).unwrap().service;
    assert_eq!(config.auth.token_ttl, Duration::from_secs(24 * 3600));
    assert_eq!(config.auth.refresh_ttl, Duration::from_secs(720 * 3600));
    assert_eq!((config.auth.signup, &*config.room_url), (SignupMode::Open, "http://127.0.0.1:50052"));
    let config = with(&["--refresh-ttl=1h", "--signup=invite", "--room-url=http://room:50052"]).unwrap().service;
    assert_eq!(config.auth.refresh_ttl, Duration::from_secs(3600));
    assert_eq!((config.auth.signup, &*config.room_url), (SignupMode::Invite, "http://room:50052"));
    assert_eq!(with(&["--signup=off"]).unwrap().service.auth.signup, SignupMode::Off);
}

#[test]
fn subcommands_are_read() {
    let command =
        |arguments: &[&str]| Program::try_parse_from(["confab-auth"].iter().chain(arguments)).unwrap().command;
    assert_eq!(command(&["migrate"]), Some(Command::Migrate));
    let reset = Some(Command::ResetPassword { username: "ada".into() });
    assert_eq!(command(&["reset-password", "ada", "--data-dir=x"]), reset);
    let created = |scopes: &[&str], name: &str| {
        let scopes = scopes.iter().map(|scope| scope.to_string()).collect();
        Some(Command::Key(KeyCommand::Create { scopes, name: name.into() }))
    };
    let create = ["key", "create", "--scopes", "users,tokens", "--name", "app", "--data-dir=x"];
    assert_eq!(command(&create), created(&["users", "tokens"], "app"));
    assert_eq!(command(&["key", "create", "--scopes=keys"]), created(&["keys"], ""));
    for bad in [&["key"][..], &["key", "create"], &["key", "create", "--scopes"]] {
        assert!(Program::try_parse_from(["confab-auth"].iter().chain(bad)).is_err(), "{bad:?}");
    }
    assert_eq!(command(&[]), None);
}
