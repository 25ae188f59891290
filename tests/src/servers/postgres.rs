//! Postgres. It refuses to run as root, so root runs it as the user that its package creates.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use crate::daemon::Daemon;

/// The name of the superuser; the database for Confab is `confab`.
pub const SUPERUSER: &str = "postgres";

#[derive(Debug, Clone)]
pub struct Postgres {
    programs: PathBuf,
    work: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    durable: bool,
}

impl Postgres {
    /// Describes a server that stores its files under `work`. Without `durable` it does not wait for the disk: it
    /// survives being killed, but not a crash of the machine.
    ///
    /// # Errors
    /// When Postgres 15 or newer is not installed, or there is no user to run it as.
    pub fn new(work: &Path, port: u16, durable: bool) -> anyhow::Result<Self> {
        Self::of(programs()?, work, port, durable)
    }

    /// Like [`new`](Self::new), with the programs in this directory.
    ///
    /// # Errors
    /// When there is no user to run it as.
    pub fn of(programs: PathBuf, work: &Path, port: u16, durable: bool) -> anyhow::Result<Self> {
        let user = unprivileged_if_root()?;
        let work = match user {
            Some((user, _)) if !reachable(work, user) => elsewhere(work),
            _ => work.to_path_buf(),
        };
        Ok(Self { programs, work, port, user, durable })
    }

    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Describes how to run it; the process is the postmaster itself.
    pub fn daemon(&self, pid_file: PathBuf, log: PathBuf) -> Daemon {
        let mut arguments = vec!["-D".into(), self.data().display().to_string(), "-p".into(), self.port.to_string()];
        let durability: &[&str] = if self.durable { &[] } else { &["fsync=off", "full_page_writes=off"] };
        let settings =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=500", "shared_buffers=128MB"];
        for setting in settings.iter().chain(durability) {
            arguments.extend(["-c".into(), setting.to_string()]);
        }
        Daemon {
            arguments,
            environment: vec![("LC_ALL".into(), "C.UTF-8".into())],
            user: self.user,
            lock_file: Some(self.data().join("postmaster.pid")),
            // A "fast" shutdown: it does not wait for clients to disconnect.
            stop: Signal::INT,
            ..Daemon::new(self.programs.join("postgres"), self.data(), pid_file, log)
        }
    }

    /// Creates the data directory and the database, unless they exist. With a password the server requires it; without
    /// a password every local user may connect.
    ///
    /// # Errors
    /// When initdb fails; the message contains its output.
    pub fn prepare(&self, password: Option<&str>) -> anyhow::Result<()> {
        let done = self.work.join("prepared");
        if done.exists() {
            return Ok(());
        }
        // Removes the files of an interrupted preparation.
        let _ = fs::remove_dir_all(&self.work);
        fs::create_dir_all(&self.work)?;
        let mut arguments = vec!["-D", "data", "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
        if let Some(password) = password {
            let file = self.work.join("password");
            fs::write(&file, "")?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            fs::write(&file, password)?;
            self.give(&file)?;
            arguments.extend(["--auth=scram-sha-256", "--pwfile=password"]);
        } else {
            arguments.push("--auth=trust");
        }
        fs::set_permissions(&self.work, Permissions::from_mode(0o700))?;
        self.give(&self.work)?;
        self.run("initdb", &arguments, "")?;
        self.run("postgres", &["--single", "-D", "data", "postgres"], "CREATE DATABASE confab\n")?;
        let _ = fs::remove_file(self.work.join("password"));
        fs::write(done, "")?;
        Ok(())
    }

    /// Gives a prepared server a certificate and its key. Returns the arguments with which it accepts TLS, only from
    /// clients with a certificate of this authority. Connections without TLS need none.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn accept_tls(&self, (certificate, key): &(PathBuf, PathBuf), authority: &Path) -> anyhow::Result<Vec<String>> {
        let rules = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\nhostnossl all all 127.0.0.1/32 trust\n";
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        let mut arguments = vec!["-c".into(), "ssl=on".into()];
        let files = [("ssl_cert_file", &**certificate), ("ssl_key_file", &**key), ("ssl_ca_file", authority)];
        for (setting, from) in files {
            let file = self.work.join(setting);
            fs::copy(from, &file)?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            self.give(&file)?;
            arguments.extend(["-c".into(), format!("{setting}={}", file.display())]);
        }
        Ok(arguments)
    }

    /// Copies the files of a running server without a password, to become its hot standby.
    ///
    /// # Errors
    /// When the copy fails; the message contains its output.
    pub fn prepare_as_standby_of(&self, primary: &Self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.work)?;
        fs::set_permissions(&self.work, Permissions::from_mode(0o700))?;
        self.give(&self.work)?;
        let port = primary.port.to_string();
        self.run(
            "pg_basebackup",
            &["-h", "127.0.0.1", "-p", &port, "-U", SUPERUSER, "-D", "data", "-R", "-c", "fast", "--no-sync"],
            "",
        )
    }

    /// Runs a statement on one of its databases; returns the unformatted result. Limited to ten seconds.
    ///
    /// # Errors
    /// When the server is unreachable or rejects the statement.
    pub fn ask(&self, database: &str, statement: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(None, database), "-c", statement]);
        let output = command.env("PGOPTIONS", "-c statement_timeout=10s").stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "psql failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Returns the URL of one of its databases.
    pub fn url(&self, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns whether it accepts connections.
    pub fn is_ready(&self) -> bool {
        let mut command = Command::new(self.programs.join("pg_isready"));
        command
            .args(["-q", "-h", "127.0.0.1", "-U", SUPERUSER, "-p", &self.port.to_string()])
            .status()
            .is_ok_and(|status| status.success())
    }

    fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        self.user.map_or(Ok(()), |(user, group)| Ok(chown(path, Some(user), Some(group))?))
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.work).env("LC_ALL", "C.UTF-8");
        if let Some((user, group)) = self.user {
            command.gid(group).uid(user);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Finds the newest installed server of version 15 or later, in Debian's directory or beside the `initdb` on the PATH.
///
/// # Errors
/// When there is none.
pub fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(version, programs)| *version >= 15 && programs.join("postgres").is_file())
        .max();
    match newest {
        Some((_, programs)) => Ok(programs),
        None => {
            Ok(super::program("initdb")?.canonicalize()?.parent().context("initdb is in a directory")?.to_path_buf())
        }
    }
}

/// Returns whether the user that runs Postgres can reach this file or directory.
///
/// # Errors
/// When there is no such user.
pub fn can_run(path: &Path) -> anyhow::Result<bool> {
    Ok(unprivileged_if_root()?.is_none_or(|(user, _)| reachable(path, user)))
}

fn unprivileged_if_root() -> anyhow::Result<Option<(u32, u32)>> {
    rustix::process::geteuid().is_root().then(unprivileged).transpose()
}

/// Returns the user that runs Postgres when the caller is root.
fn unprivileged() -> anyhow::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).context("there is no user `postgres` to run the database server as")
}

/// Returns whether that user can traverse every parent directory.
fn reachable(path: &Path, user: u32) -> bool {
    path.ancestors().skip(1).filter_map(|directory| fs::metadata(directory).ok()).all(|directory| {
        let mode = directory.permissions().mode();
        mode & 0o001 != 0 || (directory.uid() == user && mode & 0o100 != 0)
    })
}

/// Returns a directory that every user can reach, for a checkout in a private home; always the same for one checkout.
fn elsewhere(work: &Path) -> PathBuf {
    Path::new("/var/tmp").join(format!("confab{}", work.display().to_string().replace('/', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_parent_directory_is_detected() {
        let open = std::env::temp_dir().join(format!("reach-{}", std::process::id()));
        let below = open.join("closed/data");
        fs::create_dir_all(&below).unwrap();
        assert!(reachable(&below, 65_534));
        fs::set_permissions(open.join("closed"), Permissions::from_mode(0o700)).unwrap();
        assert!(!reachable(&below, 65_534));
        fs::remove_dir_all(open).unwrap();
        assert_eq!(
            elsewhere(Path::new("/home/ada/confab/.run/data/postgres-1")),
            Path::new("/var/tmp/confab-home-ada-confab-.run-data-postgres-1")
        );
    }
}
