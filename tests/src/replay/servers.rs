//! The start-up work of foreign images, done here with the servers that tests have.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::Container;
use crate::daemon::Daemon;
use crate::plan::free_ports;
use crate::servers::postgres::Postgres;
use crate::servers::{program, seaweed};

/// Describes how to run a container's server at an address; `daemon` has the container's settings.
pub(super) fn daemon(container: &Container, address: &str, daemon: Daemon) -> anyhow::Result<Daemon> {
    match container.program.as_str() {
        "postgres" => postgres(container, address, daemon),
        "redis" => redis(container, address, daemon),
        "weed" => weed(daemon),
        "psql" => Ok(Daemon { program: program("psql")?, ..daemon }),
        other => bail!("cannot start {other}"),
    }
}

fn postgres(container: &Container, address: &str, configured: Daemon) -> anyhow::Result<Daemon> {
    let given =
        |name: &str| configured.environment.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
    let password = match given("POSTGRES_PASSWORD_FILE") {
        Some(file) => std::fs::read_to_string(file)?,
        None => given("POSTGRES_PASSWORD").context("Postgres has a password")?,
    };
    ensure!(given("POSTGRES_DB").as_deref() == Some("confab"), "the database is called confab");
    let server = Postgres::new(&configured.work, 5432, false)?;
    server.prepare(Some(&password))?;
    let mut daemon = server.daemon(configured.pid_file, configured.log);
    // The last of two equal options counts.
    daemon.arguments.extend(container.arguments.iter().filter(|argument| *argument != "postgres").cloned());
    daemon.arguments.extend(["-c".into(), format!("listen_addresses={address}")]);
    Ok(daemon)
}

/// The image runs any command, including a shell that becomes the server.
fn redis(container: &Container, address: &str, configured: Daemon) -> anyhow::Result<Daemon> {
    let mut arguments = match configured.arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["redis-server", arguments @ ..] => arguments.iter().map(|argument| argument.to_string()).collect(),
        ["sh", "-c", script] => {
            let written = script
                .strip_prefix("exec redis-server ")
                .with_context(|| format!("{}: not understood: {script}", container.name))?;
            words(written, &configured)?
        }
        other => bail!("{}: not understood: {other:?}", container.name),
    };
    arguments.extend(["--bind".into(), address.to_owned()]);
    Ok(Daemon { program: program("redis-server")?, arguments, ..configured })
}

/// Splits words like a shell.
fn words(written: &str, configured: &Daemon) -> anyhow::Result<Vec<String>> {
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-c", &format!("printf '%s\\0' {written}")])
        .envs(configured.environment.iter().cloned())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = String::from_utf8(output.stdout)?;
    Ok(words.split_terminator('\0').map(str::to_owned).collect())
}

fn weed(mut configured: Daemon) -> anyhow::Result<Daemon> {
    // Its parts have sockets in /tmp named after their ports, regardless of their addresses; and it waits long for
    // other masters.
    let own =
        ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", "-master.electionTimeout=500ms"].map(String::from);
    let ports = [
        "s3.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
    ];
    let ports = ports.iter().zip(free_ports(seaweed::PORTS)?..).map(|(name, port)| format!("-{name}={port}"));
    configured.arguments.extend(own.into_iter().chain(ports));
    Ok(Daemon { program: seaweed::program()?, stop: Signal::KILL, ..configured })
}

/// Creates the roles of a database, like an operator, and like the image with scripts in its directory.
pub(super) fn roles(postgres: &str, environment: &[(&str, &str)], script: &Path) -> anyhow::Result<Container> {
    let (_, password) =
        environment.iter().find(|(name, _)| *name == "POSTGRES_PASSWORD").context("Postgres has a password")?;
    let arguments =
        [format!("postgres://postgres:{password}@{postgres}/confab"), "--file".into(), script.display().to_string()];
    Ok(Container {
        name: format!("{postgres}-roles"),
        program: "psql".into(),
        arguments: arguments.to_vec(),
        environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        replicas: 1,
        ends: true,
        after: [postgres.to_owned()].into(),
        ..Container::default()
    })
}
