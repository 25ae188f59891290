//! A cgroup that limits a program to the memory of its default container.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

/// Where systems mount their cgroup hierarchies.
const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup below the caller's cgroup. Dropping it removes it; its processes must have ended by then.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Creates a cgroup whose processes may use `bytes` bytes together.
    ///
    /// # Errors
    /// When the system has no memory cgroups, or the caller may not create one.
    pub fn new(bytes: u64) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let known = fs::read_to_string("/proc/self/cgroup").context("cgroups are not available")?;
        let (version, parent) = own(&known, Path::new(MOUNT)).context("memory cgroups are not available")?;
        if version == Version::Two {
            // The kernel rejects this while processes are in the parent itself, unless the parent is the root.
            fs::write(parent.join("cgroup.subtree_control"), "+memory")
                .context("cannot enable memory limits below the process's own cgroup")?;
        }
        let name = format!("confab-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(name);
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let group = Self { directory, version };
        let file = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        fs::write(group.directory.join(file), bytes.to_string()).with_context(|| format!("cannot set {file}"))?;
        if version == Version::Two {
            // This file does not exist without swap.
            let _ = fs::write(group.directory.join("memory.swap.max"), "0");
        }
        Ok(group)
    }

    /// Moves a process into the cgroup. Memory that it has already allocated stays in its former cgroup.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn add(&self, pid: i32) -> anyhow::Result<()> {
        let file = self.directory.join("cgroup.procs");
        fs::write(&file, pid.to_string()).with_context(|| format!("cannot move process {pid} to {}", file.display()))
    }

    /// Returns how many processes the kernel has killed for lack of memory.
    pub fn kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        fs::read_to_string(self.directory.join(file)).map_or(0, |text| kills(&text))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment to remove a killed process.
        for _ in 0..100 {
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// Finds the cgroup that accounts for a process's memory, from `/proc/PID/cgroup`.
fn own(known: &str, mount: &Path) -> Option<(Version, PathBuf)> {
    let mut lines = known.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let of = |path: &str, hierarchy: &Path| hierarchy.join(path.trim_start_matches('/'));
    if let Some((_, path)) = lines.clone().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"))
    {
        return Some((Version::One, of(path, &mount.join("memory"))));
    }
    let (_, path) = lines.find(|(controllers, _)| controllers.is_empty())?;
    Some((Version::Two, of(path, mount)))
}

fn kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroup_is_found_in_both_versions() {
        let mount = Path::new("/m");
        let one = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n";
        assert_eq!(own(one, mount), Some((Version::One, "/m/memory/a/b".into())));
        assert_eq!(own("0::/user.slice/x:y\n", mount), Some((Version::Two, "/m/user.slice/x:y".into())));
        assert_eq!(own("9:cpu:/\n", mount), None);
    }

    #[test]
    fn kills_are_read_in_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"), 1);
        assert_eq!(kills(""), 0);
    }
}
