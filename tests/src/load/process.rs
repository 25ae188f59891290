//! Resource use of processes, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// A process whose resource use is measured together with all its descendants (the workers of Postgres and of the load
/// balancer).
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its name in the results.
    pub name: String,
    pub pid: i32,
}

impl Watched {
    /// Parses `name=pid`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("must be name=pid")?;
        let pid = pid.trim().parse().map_err(|_| "pid must be a number")?;
        Ok(Self { name: name.trim().into(), pid })
    }

    /// Returns the processes of a directory of `name.pid` files, by name.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub fn directory(path: &Path) -> anyhow::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "pid") {
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let pid = fs::read_to_string(&file)?
                    .trim()
                    .parse()
                    .with_context(|| format!("{} contains no pid", file.display()))?;
                found.push(Self { name, pid });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// Processor time used so far, by each watched process, by this process, and by the whole machine.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// In the order of the watched processes.
    pub watched: Vec<Duration>,
    /// This process.
    pub own: Duration,
    /// All processes of this machine.
    pub machine: Duration,
    /// Time that the hypervisor gave to other machines.
    pub stolen: Duration,
}

impl Cpu {
    /// Reads the current values.
    ///
    /// # Errors
    /// When a watched process has ended.
    pub fn now(watched: &[Watched]) -> anyhow::Result<Self> {
        let tree = tree(watched)?;
        let watched =
            watched.iter().map(|process| members(&tree, process.pid).map(|pid| tree[&pid].cpu).sum()).collect();
        let own = Stat::of(std::process::id() as i32).context("no /proc/self/stat")?.cpu;
        let (machine, stolen) = machine(&fs::read_to_string("/proc/stat")?)?;
        Ok(Self { watched, own, machine, stolen })
    }

    /// Returns the time used since an earlier reading.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            watched: self
                .watched
                .iter()
                .zip(&before.watched)
                .map(|(now, before)| now.saturating_sub(*before))
                .collect(),
            own: self.own.saturating_sub(before.own),
            machine: self.machine.saturating_sub(before.machine),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }
}

/// Memory of a process and its descendants, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory.
    pub rss: u64,
    /// Resident memory, with shared pages counted in proportion.
    pub pss: u64,
}

impl Memory {
    /// Reads the current value.
    ///
    /// # Errors
    /// When the process has ended or belongs to another user.
    pub fn of(process: &Watched) -> anyhow::Result<Self> {
        let tree = tree(std::slice::from_ref(process))?;
        let mut sum = Self::default();
        for pid in members(&tree, process.pid) {
            // A child may have ended meanwhile.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let memory = Self::parse(&text);
            sum = Self { rss: sum.rss + memory.rss, pss: sum.pss + memory.pss };
        }
        if sum.rss == 0 {
            bail!("cannot read the memory of {} ({})", process.name, process.pid);
        }
        Ok(sum)
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Self { rss: field("Rss:"), pss: field("Pss:") }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// Its own time, and that of children that have ended.
    cpu: Duration,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, rustix::param::clock_ticks_per_second())
    }

    fn parse(text: &str, ticks_per_second: u64) -> Option<Self> {
        // The name may contain any character, so fields are counted from the last parenthesis.
        let fields = text.rsplit_once(") ")?.1.split(' ').collect::<Vec<_>>();
        let times = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self { parent: fields[1].parse().ok()?, cpu: ticks(times, ticks_per_second) })
    }
}

fn ticks(count: u64, per_second: u64) -> Duration {
    Duration::from_nanos(count * 1_000_000_000 / per_second)
}

/// Returns all processes of the machine; fails when a watched process is missing.
fn tree(watched: &[Watched]) -> anyhow::Result<HashMap<i32, Stat>> {
    let mut tree = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = Stat::of(pid)
        {
            tree.insert(pid, stat);
        }
    }
    match watched.iter().find(|process| !tree.contains_key(&process.pid)) {
        Some(gone) => bail!("{} ({}) is not running", gone.name, gone.pid),
        None => Ok(tree),
    }
}

fn members(tree: &HashMap<i32, Stat>, root: i32) -> impl Iterator<Item = i32> {
    tree.keys().copied().filter(move |pid| {
        let line = std::iter::successors(Some(*pid), |pid| tree.get(pid).map(|stat| stat.parent));
        line.take_while(|pid| *pid > 0).any(|pid| pid == root)
    })
}

/// Parses the busy and the stolen time in `/proc/stat`.
fn machine(text: &str) -> anyhow::Result<(Duration, Duration)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).context("no cpu line in /proc/stat")?;
    let fields = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, stolen] = fields.get(..8).context("short cpu line")?.try_into()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok((ticks(user + nice + system + irq + softirq, per_second), ticks(stolen, per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_name_like_fields_is_parsed() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 150 50 3 2 20 0 9 0 12345 1000000 500";
        assert_eq!(Stat::parse(text, 100), Some(Stat { parent: 7, cpu: Duration::from_millis(2050) }));
        assert_eq!(Stat::parse("42 (short) S 7", 100), None);
    }

    #[test]
    fn memory_and_machine() {
        let text = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1024 kB\nPss_Dirty: 512 kB\n";
        assert_eq!(Memory::parse(text), Memory { rss: 2 << 20, pss: 1 << 20 });
        let (busy, stolen) = machine("cpu  100 0 100 900 5 50 50 200 0 0\ncpu0 1 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!(busy, stolen + ticks(100, rustix::param::clock_ticks_per_second()));
        assert!(machine("intr 1").is_err());
    }

    #[test]
    fn this_process_and_its_children_are_found() {
        let own = Watched { name: "own".into(), pid: std::process::id() as i32 };
        assert!(Memory::of(&own).unwrap().rss > 0);
        let before = Cpu::now(std::slice::from_ref(&own)).unwrap();
        let after = Cpu::now(&[own]).unwrap().since(&before);
        assert_eq!(after.watched.len(), 1);
        assert!(Cpu::now(&[Watched { name: "missing".into(), pid: i32::MAX }]).is_err());
        assert_eq!(Watched::parse("gateway=7").unwrap().pid, 7);
        assert!(Watched::parse("gateway").is_err() && Watched::parse("gateway=x").is_err());
    }
}
