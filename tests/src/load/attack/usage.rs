//! The resource use of a process: memory, descriptors, threads, tasks.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::exposition::Exposition;

/// How often a process is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// The resource use of one process, at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub rss: u64,
    /// The maximum resident memory so far.
    pub peak: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// Tasks of its runtime; 0 when the process does not answer.
    pub tasks: u64,
}

impl Usage {
    /// Samples a process.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn of(pid: i32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("the process has ended")?.count() as u64;
        Self::parse(&status).map(|usage| Self { descriptors, ..usage }).context("the process has ended")
    }

    /// Samples a process, and requests the number of tasks from its admin port.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn with_tasks(pid: i32, admin: u16) -> anyhow::Result<Self> {
        let usage = Self::of(pid)?;
        let scraped = tokio::time::timeout(Duration::from_secs(5), Exposition::scrape(admin)).await;
        let tasks =
            scraped.ok().and_then(Result::ok).and_then(|all| all.value("confab_tasks")).unwrap_or_default() as u64;
        Ok(Self { tasks, ..usage })
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        // A zombie process has no memory.
        Some(Self {
            rss: field("VmRSS")? << 10,
            peak: field("VmHWM")? << 10,
            threads: field("Threads")?,
            ..Self::default()
        })
    }

    fn most(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            peak: self.peak.max(other.peak),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            tasks: self.tasks.max(other.tasks),
        }
    }
}

/// Samples a process repeatedly, and kills it when it exceeds its memory limit.
pub struct Watch {
    most: Arc<Mutex<Usage>>,
    over: Arc<AtomicBool>,
    killed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts sampling; `limit` is in bytes.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn begin(pid: i32, limit: u64) -> anyhow::Result<Self> {
        // Resets the peak. Only the owner may do this; otherwise the peak is sampled.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        let (most, over, killed) =
            (Arc::<Mutex<Usage>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let theirs = (most.clone(), over.clone(), killed.clone());
        let look = move || {
            let (most, over, killed) = theirs;
            while !over.load(Ordering::Relaxed) {
                let Ok(now) = Usage::of(pid) else { return };
                let mut most = most.lock();
                *most = most.most(now);
                drop(most);
                if now.rss > limit {
                    killed.store(now.rss, Ordering::Relaxed);
                    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
                    return;
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
        };
        Ok(Self { most, over, killed, thread: thread::Builder::new().name("watch".into()).spawn(look)? })
    }

    /// Returns the maximum use, and the memory at which the process was killed, if it was.
    pub fn end(self) -> (Usage, Option<u64>) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let most = *self.most.lock();
        (most, Some(self.killed.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_parsed_and_a_zombie_counts_as_ended() {
        let status = "Name:\tconfab\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n";
        let usage = Usage { rss: 1 << 20, peak: 2 << 20, threads: 7, ..Usage::default() };
        assert_eq!(Usage::parse(status), Some(usage));
        assert_eq!(Usage::parse("Name:\tconfab\nState:\tZ (zombie)\nThreads:\t1\n"), None);
        assert_eq!(usage.most(Usage { rss: 3 << 20, threads: 2, ..Usage::default() }), Usage { rss: 3 << 20, ..usage });
    }

    #[test]
    fn process_is_killed_above_its_limit() {
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(Usage::of(pid).unwrap().descriptors > 0);
        let watch = Watch::begin(pid, 1).unwrap();
        child.wait().unwrap();
        assert!(watch.end().1.is_some());
        assert!(Usage::of(i32::MAX).is_err());
    }
}
