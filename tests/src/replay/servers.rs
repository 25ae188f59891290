//! What images that are not ours do when they start, done here with the servers that tests have.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::Container;
use crate::daemon::Daemon;
use crate::servers::postgres::Postgres;
use crate::servers::{program, seaweed};

/// How the server of a container is run at an address; `daemon` has what the container was told.
pub(super) fn daemon(container: &mut Container, address: &str, daemon: Daemon) -> anyhow::Result<Daemon> {
    match container.program.as_str() {
        "postgres" => postgres(container, address, daemon),
        "redis" => redis(container, address, daemon),
        "weed" => weed(daemon),
        "psql" => Ok(Daemon { program: program("psql")?, ..daemon }),
        other => bail!("nobody knows how to start {other}"),
    }
}

fn postgres(container: &Container, address: &str, told: Daemon) -> anyhow::Result<Daemon> {
    let given = |name: &str| told.environment.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
    let password = match given("POSTGRES_PASSWORD_FILE") {
        Some(file) => std::fs::read_to_string(file)?,
        None => given("POSTGRES_PASSWORD").context("Postgres has a password")?,
    };
    ensure!(given("POSTGRES_DB").as_deref() == Some("confab"), "the database is called confab");
    let server = Postgres::new(&told.work, 5432, false)?;
    server.prepare(Some(&password))?;
    let mut daemon = server.daemon(told.pid_file, told.log);
    // Given twice, the last counts.
    daemon.arguments.extend(container.arguments.iter().filter(|argument| *argument != "postgres").cloned());
    daemon.arguments.extend(["-c".into(), format!("listen_addresses={address}")]);
    Ok(daemon)
}

/// Its image runs whatever it is told, a shell as well.
fn redis(container: &Container, address: &str, told: Daemon) -> anyhow::Result<Daemon> {
    let (name, arguments) = told.arguments.split_first().context("Redis is told what to run")?;
    let mut arguments = arguments.to_vec();
    let bind = format!("--bind {address}");
    match name.as_str() {
        "sh" => *arguments.last_mut().context("a shell has a script")? += &format!(" {bind}"),
        "redis-server" => arguments.extend(bind.split(' ').map(str::to_owned)),
        other => bail!("{}: not understood: {other}", container.name),
    }
    Ok(Daemon { program: program(name)?, arguments, ..told })
}

fn weed(mut told: Daemon) -> anyhow::Result<Daemon> {
    // Else its sockets are in /tmp, and it waits long for others of its kind.
    let ours = ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", "-master.electionTimeout=500ms"];
    told.arguments.extend(ours.map(String::from));
    Ok(Daemon { program: seaweed::program()?, stop: Signal::KILL, ..told })
}

/// Makes the roles of a database, as an operator does and as the image does with what it finds in a directory of its own.
pub(super) fn roles(postgres: &str, environment: &[(&str, &str)], script: &Path) -> anyhow::Result<Container> {
    let (_, password) = environment.iter().find(|(name, _)| *name == "POSTGRES_PASSWORD").context("Postgres has a password")?;
    let arguments = [format!("postgres://postgres:{password}@{postgres}/confab"), "--file".into(), script.display().to_string()];
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
