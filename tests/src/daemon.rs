//! A process that outlives the process that started it, identified by its working directory.
//!
//! A pid file alone may be wrong: its process may have ended and the number been reused. A process therefore counts as
//! ours when it runs the right program *in a directory that only it uses*. This also finds processes left over after a
//! `kill -9` of their parent.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

#[derive(Debug, Clone)]
pub struct Daemon {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Variables added to the environment.
    pub environment: Vec<(String, String)>,
    /// Whether it also receives the caller's `CONFAB_` variables.
    pub inherits_settings: bool,
    /// User and group to run as, if not the caller's.
    pub user: Option<(u32, u32)>,
    /// Its descriptor limit, if not the caller's.
    pub descriptors: Option<u64>,
    /// The directory that only this process works in.
    pub work: PathBuf,
    pub pid_file: PathBuf,
    /// The file to which its output is appended.
    pub log: PathBuf,
    /// A file that exists while it runs, and that a crash leaves behind.
    pub lock_file: Option<PathBuf>,
    /// The signal that ends it gracefully.
    pub stop: Signal,
}

impl Daemon {
    /// Creates a program with defaults: it does not receive the caller's settings, and ends on SIGTERM.
    pub fn new(program: PathBuf, work: PathBuf, pid_file: PathBuf, log: PathBuf) -> Self {
        Self {
            program,
            arguments: vec![],
            environment: vec![],
            inherits_settings: false,
            user: None,
            descriptors: None,
            work,
            pid_file,
            log,
            lock_file: None,
            stop: Signal::TERM,
        }
    }

    /// Returns its process id, while it runs.
    pub fn running(&self) -> Option<i32> {
        let pid = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        self.is_own(pid).then_some(pid)
    }

    /// Starts the program and writes its pid file, after ending leftovers of an earlier run.
    ///
    /// # Errors
    /// When the program cannot be run or a file cannot be written.
    pub async fn spawn(&self) -> anyhow::Result<i32> {
        self.kill().await?;
        // No process of an earlier run is left, whichever process has its number now.
        self.lock_file.as_deref().map_or(Ok(()), remove)?;
        for directory in [&self.work, parent(&self.pid_file), parent(&self.log)] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = match self.descriptors {
            None => Command::new(&self.program),
            // prlimit replaces itself with the program.
            Some(limit) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}")).arg(&self.program);
                command
            }
        };
        // Its own process group and no terminal: it neither receives the caller's Ctrl-C nor ends with the caller.
        command
            .current_dir(&self.work)
            .args(&self.arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.give_settings(&mut command);
        if let Some((user, group)) = self.user {
            command.gid(group).uid(user);
        }
        let child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        fs::write(&self.pid_file, format!("{}\n", child.id()))?;
        let pid: i32 = child.id().try_into()?;
        // A thread must wait for the process to end, or it remains a zombie while the caller lives.
        let (mut child, end) = (child, self.work.join(format!("end-of-{pid}")));
        std::thread::spawn(move || child.wait().map(|status| fs::write(end, status.to_string())));
        if self.descriptors.is_some() {
            // Until then the process looks like another program.
            let becomes = async || self.is_own(pid).then_some(());
            eventually("prlimit becomes the program", Duration::from_secs(10), becomes)
                .await
                .with_context(|| self.last_words())?;
        }
        Ok(pid)
    }

    /// Runs a subcommand of the program with its settings, which must succeed. Returns what it prints.
    ///
    /// # Errors
    /// When the program cannot be run or fails.
    pub async fn output(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.work).args(arguments).stdin(Stdio::null());
        self.give_settings(&mut command);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        anyhow::ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn give_settings(&self, command: &mut Command) {
        if !self.inherits_settings {
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONFAB_")) {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.environment {
            // Otherwise a setting given by file here and by value in the caller's environment would be set twice.
            command.env_remove(name.trim_end_matches("_FILE")).env(name, value);
        }
    }

    /// Shuts it down with SIGTERM; it must end successfully within `limit`.
    ///
    /// # Errors
    /// When it does not run, does not end, or fails.
    pub async fn leave(&self, limit: Duration) -> anyhow::Result<()> {
        let pid = self.running().context("the process is not running")?;
        signal(pid, Signal::TERM);
        self.ended(pid, limit).await
    }

    /// Waits for the end of the process with that pid, which must succeed.
    ///
    /// # Errors
    /// When it does not end within `limit`, or fails.
    pub async fn ended(&self, pid: i32, limit: Duration) -> anyhow::Result<()> {
        let end = self.work.join(format!("end-of-{pid}"));
        let status = async || fs::read_to_string(&end).ok().filter(|status| !status.is_empty());
        let status = eventually("its end", limit, status).await.with_context(|| self.last_words())?;
        anyhow::ensure!(status == "exit status: 0", "{status}: {}", self.last_words());
        self.kill().await
    }

    /// Shuts it down, by force after `limit`; then ends its leftovers.
    ///
    /// # Errors
    /// When one of its processes remains.
    pub async fn stop(&self, limit: Duration) -> anyhow::Result<()> {
        if let Some(pid) = self.running() {
            signal(pid, self.stop);
            let _ = eventually("its end", limit, async || self.running().is_none().then_some(())).await;
        }
        self.kill().await
    }

    /// Kills it and its leftovers.
    ///
    /// # Errors
    /// When one of its processes remains.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let gone = async || {
            let left = self.leftovers();
            left.iter().for_each(|pid| signal(*pid, Signal::KILL));
            left.is_empty().then_some(())
        };
        eventually(&format!("processes in {} have ended", self.work.display()), Duration::from_secs(10), gone).await?;
        remove(&self.pid_file)
    }

    /// Sends a signal to the process itself; returns `false` when it does not run.
    pub fn signal(&self, signal_: Signal) -> bool {
        self.running().inspect(|pid| signal(*pid, signal_)).is_some()
    }

    /// Returns the end of its log, for an error message.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = log.lines().collect::<Vec<_>>();
        format!("{}:\n  {}", self.log.display(), lines[lines.len().saturating_sub(8)..].join("\n  "))
    }

    /// Returns whether the file that it was started from is still the one on disk.
    pub fn is_current(&self) -> bool {
        self.running()
            .and_then(|pid| fs::metadata(format!("/proc/{pid}/exe")).ok())
            .zip(fs::metadata(&self.program).ok())
            .is_some_and(|(running, there)| {
                use std::os::unix::fs::MetadataExt;
                (running.dev(), running.ino()) == (there.dev(), there.ino())
            })
    }

    fn leftovers(&self) -> Vec<i32> {
        processes().filter(|pid| self.is_own(*pid)).collect()
    }

    fn is_own(&self, pid: i32) -> bool {
        let program = self.program.canonicalize().unwrap_or_else(|_| self.program.clone());
        let same_program = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
            // Compares names only: after a rebuild the program is another file, and the old one is marked as deleted.
            let exe = exe.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_string());
            exe.as_deref() == program.file_name().and_then(|name| name.to_str())
        });
        same_program && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| is_within(&cwd, &self.work))
    }
}

/// Kills every process that works in or below `directory`, except the caller.
pub fn sweep(directory: &Path) {
    let own = std::process::id().cast_signed();
    for pid in processes().filter(|pid| *pid != own) {
        if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| is_within(&cwd, directory)) {
            signal(pid, Signal::KILL);
        }
    }
}

fn is_within(path: &Path, directory: &Path) -> bool {
    directory.canonicalize().is_ok_and(|directory| path.starts_with(directory))
}

/// Sends a signal; a process that has already ended is not an error.
fn signal(pid: i32, signal: Signal) {
    // A killed process cannot remove its sockets.
    let sockets = if signal == Signal::KILL { sockets(pid) } else { vec![] };
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
    sockets.iter().for_each(|socket| _ = fs::remove_file(socket));
}

/// Returns the files of the sockets that a process listens on.
fn sockets(pid: i32) -> Vec<PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open = files
        .filter_map(|file| fs::read_link(file.path()).ok()?.into_os_string().into_string().ok())
        .collect::<Vec<_>>();
    let known = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let fields = known.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // … flags type state inode path; the flag means that it accepts connections.
    let own = fields.filter_map(|fields| match fields[..] {
        [_, _, _, "00010000", _, _, inode, path] if path.starts_with('/') => {
            open.contains(&format!("socket:[{inode}]")).then(|| path.into())
        }
        _ => None,
    });
    own.collect()
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(name: &str, program: &str, arguments: &[&str]) -> Daemon {
        let directory = std::env::temp_dir().join(format!("daemon-{name}-{}", std::process::id()));
        Daemon {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..Daemon::new(program.into(), directory.join("work"), directory.join("it.pid"), directory.join("it.log"))
        }
    }

    #[tokio::test]
    async fn recognises_and_ends_its_process() {
        let sleeper = daemon("sleeper", "/bin/sleep", &["600"]);
        let pid = sleeper.spawn().await.unwrap();
        eventually("it runs", Duration::from_secs(5), async || sleeper.running()).await.unwrap();
        assert_eq!((sleeper.running(), sleeper.is_current()), (Some(pid), true));
        sleeper.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!((sleeper.running(), sleeper.pid_file.exists()), (None, false));
        fs::remove_dir_all(sleeper.work.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn descriptor_limit_is_applied() {
        let sleeper = Daemon { descriptors: Some(77), ..daemon("narrow", "/bin/sleep", &["600"]) };
        let pid = sleeper.spawn().await.unwrap();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["77", "77"], "{line}");
        assert_eq!(sleeper.running(), Some(pid));
        sleeper.kill().await.unwrap();
        fs::remove_dir_all(sleeper.work.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn stale_pid_file_is_ignored_and_leftovers_are_found() {
        let sleeper = daemon("stale", "/bin/sleep", &["600"]);
        let first = sleeper.spawn().await.unwrap();
        eventually("it runs", Duration::from_secs(5), async || sleeper.running()).await.unwrap();
        // The number now belongs to another process: this test's own.
        fs::write(&sleeper.pid_file, std::process::id().to_string()).unwrap();
        assert_eq!(sleeper.running(), None);
        let second = sleeper.spawn().await.unwrap();
        let only_the_second = async || (sleeper.leftovers() == [second]).then_some(());
        eventually("the first process has ended", Duration::from_secs(5), only_the_second).await.unwrap();
        assert_ne!(first, second);
        sleeper.kill().await.unwrap();
        fs::remove_dir_all(sleeper.work.parent().unwrap()).unwrap();
    }
}
