//! One attack: the honest clients alone, with the attackers, and alone again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::figures::Figures;
use super::honest::{Honest, login_accounts};
use super::hostile::Hostile;
use super::say;
use super::scenarios::Scenario;
use super::stage::Stage;
use super::tally::Counts;
use super::usage::{Usage, Watch};

/// Time before the first measurement.
const WARM_UP: Duration = Duration::from_secs(3);
/// Honest clients are counted anew this long before the end, when the effects of the attack are over.
const FINAL_PHASE: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How many samples it takes to see the memory that a process keeps.
const KEPT_LOOKS: usize = 25;
/// Time of the honest clients beyond the phases: for the samples before and after the attack, and for delays.
const MARGIN: Duration = Duration::from_secs(60);
/// Maximum log lines that are shown.
const SHOWN: usize = 3;

/// The duration of each part, in seconds.
pub struct Times {
    /// The honest clients alone.
    pub base: u64,
    pub attack: u64,
    /// After the attack.
    pub after: u64,
}

impl Times {
    /// At least the time for which the honest clients run.
    fn of_honest_clients(&self) -> Duration {
        WARM_UP + Duration::from_secs(self.base + self.attack + self.after) + MARGIN
    }
}

/// The resource use of a measured process.
#[derive(Debug)]
pub struct Victim {
    pub name: &'static str,
    /// Before the attack.
    pub base: Usage,
    /// The maximum during the attack.
    pub most: Usage,
    /// Some time after the attack; `None` when the process has ended.
    pub after: Option<Usage>,
    /// Whether the process is in a cgroup.
    pub is_confined: bool,
    /// Why the process was killed, if it was.
    pub killed: Option<String>,
}

/// All measurements.
#[derive(Debug)]
pub struct Outcome {
    /// The honest clients alone.
    pub base: Counts,
    /// The honest clients during the attack.
    pub attacked: Counts,
    /// The honest clients alone again.
    pub after: Counts,
    /// The actions of the attackers.
    pub hostile: Counts,
    pub victims: Vec<Victim>,
    /// Log lines that indicate a fault of the server.
    pub faults: Vec<String>,
}

/// Runs the attack.
///
/// # Errors
/// When the server does not start, or honest clients are rejected before the attack.
pub async fn run(scenario: &Scenario, times: &Times, one_address: bool) -> anyhow::Result<Outcome> {
    let stage = Stage::set(scenario.kind, one_address, login_accounts(times.of_honest_clients())).await?;
    let field = scenario.attack.prepare(&stage).await?;
    let honest = Honest::begin(stage.people.clone())?;
    sleep(WARM_UP).await;
    honest.take();
    sleep(Duration::from_secs(times.base)).await;
    let base = honest.take();
    let mut victims = Vec::new();
    for victim in &stage.victims {
        victims.push((kept(victim).await?, Watch::begin(victim.pid, victim.limit())?));
    }
    say("Starting the attackers.");
    let (hostile, begun) = (Hostile::begin(scenario.attack, field)?, Instant::now());
    let mut tasks = vec![0; victims.len()];
    while begun.elapsed() < Duration::from_secs(times.attack) && !hostile.is_done() {
        sleep(CHECK_INTERVAL).await;
        for (most, victim) in tasks.iter_mut().zip(&stage.victims) {
            if let Ok(usage) = Usage::with_tasks(victim.pid, victim.admin).await {
                *most = usage.tasks.max(*most);
            }
        }
    }
    let attacked = honest.take();
    let hostile = hostile.end();
    say(&format!("The attackers stopped after {:.1} s.", begun.elapsed().as_secs_f64()));
    let rest = Duration::from_secs(times.after);
    sleep(rest.saturating_sub(FINAL_PHASE)).await;
    honest.take();
    sleep(rest.min(FINAL_PHASE)).await;
    let after = honest.take();
    let mut became = Vec::new();
    for (((base, watch), tasks), victim) in victims.into_iter().zip(tasks).zip(&stage.victims) {
        let (most, beyond) = watch.end();
        let after = kept(victim).await.ok();
        let kills = victim.cgroup.as_ref().map_or(0, |cgroup| cgroup.kills());
        let killed = match (beyond, kills, after) {
            (Some(bytes), ..) => Some(format!("killed at {} MiB by the watch", bytes >> 20)),
            (None, 1.., _) => Some(format!("killed by the kernel at {} MiB", victim.given >> 20)),
            (None, 0, None) => Some("ended".into()),
            (None, 0, Some(_)) => None,
        };
        let most = Usage { tasks, ..most };
        became.push(Victim { name: victim.name, base, most, after, is_confined: victim.cgroup.is_some(), killed });
    }
    honest.end();
    let faults = stage.logs().iter().flat_map(|log| faults(log)).collect();
    stage.clear().await;
    Ok(Outcome { base, attacked, after, hostile, victims: became, faults })
}

/// Returns the memory that a process keeps: the minimum over some seconds, since each login of the honest clients needs
/// 19 MiB for a moment.
async fn kept(victim: &super::stage::Victim) -> anyhow::Result<Usage> {
    let mut usage = Usage::with_tasks(victim.pid, victim.admin).await?;
    for _ in 0..KEPT_LOOKS {
        sleep(CHECK_INTERVAL).await;
        usage.rss = usage.rss.min(Usage::of(victim.pid)?.rss);
    }
    Ok(usage)
}

/// Shortens a text for display.
pub fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

/// Returns the lines of a log that indicate a fault of the server.
fn faults(log: &str) -> Vec<String> {
    let is_fault = |line: &&str| {
        [" ERROR ", "internal error", "panicked", "Too many open files", "cannot open"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    log.lines().filter(is_fault).map(str::to_owned).collect()
}

impl Outcome {
    /// Describes the first failure of each kind.
    pub fn failures(&self) -> Vec<String> {
        let phases =
            [("base", &self.base), ("attacked", &self.attacked), ("after", &self.after), ("attackers", &self.hostile)];
        let all = phases
            .into_iter()
            .flat_map(|(phase, counts)| counts.acts.iter().map(move |(what, acts)| (phase, what, acts)));
        let words =
            all.filter_map(|(phase, what, acts)| Some(format!("{phase}: {what}: {}", shown(acts.fault.as_deref()?))));
        words.chain(self.faults.iter().take(SHOWN).map(|line| format!("log: {}", shown(line)))).collect()
    }

    /// Returns all results as a table.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (phase, counts) in [("base", &self.base), ("attacked", &self.attacked), ("after", &self.after)] {
            for (what, acts) in &counts.acts {
                figures.add(format!("{phase}: {what}, done"), "", acts.done as f64);
                if acts.failed > 0 {
                    figures.add(format!("{phase}: {what}, failed"), "", acts.failed as f64);
                }
                if acts.time.percentile(50.0) > 0.0 {
                    figures.add(format!("{phase}: {what}, p50"), "ms", acts.time.percentile(50.0));
                    figures.add(format!("{phase}: {what}, p99"), "ms", acts.p99());
                }
            }
        }
        for (what, acts) in &self.hostile.acts {
            figures.add(format!("attackers: {what}"), "", acts.done as f64);
            if acts.failed > 0 {
                figures.add(format!("attackers: {what}, failed"), "", acts.failed as f64);
            }
        }
        for victim in &self.victims {
            let phases = [("before", Some(victim.base)), ("most", Some(victim.most)), ("after", victim.after)];
            for (phase, usage) in phases {
                let Some(usage) = usage else { continue };
                let rss = if phase == "most" { usage.rss.max(usage.peak) } else { usage.rss };
                figures.add(format!("{}, {phase}: memory", victim.name), "MiB", (rss >> 20) as f64);
                figures.add(format!("{}, {phase}: descriptors", victim.name), "", usage.descriptors as f64);
                figures.add(format!("{}, {phase}: threads", victim.name), "", usage.threads as f64);
                figures.add(format!("{}, {phase}: tasks", victim.name), "", usage.tasks as f64);
            }
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_server_errors_only() {
        let log =
            "x INFO ready\nx ERROR store: cannot open file.db\nx WARN a client was slow\nx WARN internal error: 24\n";
        assert_eq!(faults(log).len(), 2);
    }
}
