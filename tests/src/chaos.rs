//! Checks the promises of delivery: a whole cluster, stock and raw clients, every fault of the table, and a checker
//! that reads what all clients received.

mod access;
mod breakage;
mod checker;
mod clients;
mod faults;
mod history;
mod message;
mod population;
pub mod proxy;
mod recorder;
mod report;
mod schedule;
mod signals;
mod terms;
mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep, timeout};

pub use breakage::Breakage;
pub use checker::{Verdict, Violation};
pub use faults::{CASES, Case, named};
pub use report::print;
pub use schedule::Profile;

use self::clients::hostile;
use self::history::{Records, Use};
use self::population::Population;
use self::schedule::{Dice, Schedule};
use self::world::World;
use crate::load::attack::usage::Usage;
use crate::wait::eventually;

/// Time limit until all clients are connected, at the start and after each fault.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Without trouble for this long, the system counts as healthy.
const HEALTHY_AFTER: Duration = Duration::from_millis(1500);
/// Time limit until the clients have done what shows a breakage.
const EXERCISE_LIMIT: Duration = Duration::from_secs(60);
/// How often the resource use of processes is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Time limit for a process to report its number of tasks.
const METRIC_LIMIT: Duration = Duration::from_secs(1);

/// The options of a run.
pub struct Options {
    /// The seed of all random choices.
    pub seed: u64,
    pub profile: Profile,
    /// The duration of the long profile, in minutes.
    pub minutes: u64,
    /// These cases instead of all.
    pub cases: Vec<&'static Case>,
    /// A promise to break on purpose during the whole run; the checker must detect it.
    pub breakage: Option<Breakage>,
    /// The directory of the programs with failpoints.
    pub programs: std::path::PathBuf,
}

/// Starts a cluster, injects faults, and checks the records.
///
/// # Errors
/// When the run itself fails; violations by the cluster are in the verdict.
pub async fn run(options: Options) -> anyhow::Result<(Records, Verdict)> {
    let world = Arc::new(World::start(&options.programs).await?);
    let mut dice = Dice::new(options.seed);
    let mut population = Population::start(&world, &mut dice).await?;
    whole(&world, CONNECT_LIMIT).await.context("the cluster was never healthy")?;
    if let Some(breakage) = options.breakage {
        let (role, points) = breakage.points();
        for n in 1..=world.cluster.plan.count(role) {
            for point in points {
                world.arm((role, n), point, "on").await?;
            }
        }
    }
    let broken = world.recorder.now();
    look(&world).await;
    // A run for one broken promise has no hostile clients, which would distract from it. Hostile clients have their own
    // random generator, so that the rest of the run is the same without them.
    let hostile = match options.breakage {
        None => Some(hostile::Crowd::begin(&world, &mut Dice::new(!options.seed)).await?),
        Some(_) => None,
    };
    let watching = tokio::spawn(watch(world.clone()));
    let mut schedule = match options.breakage {
        Some(breakage) if options.cases.is_empty() => {
            Schedule::of(&breakage.cases().iter().filter_map(|name| named(name)).collect::<Vec<_>>(), dice.split())
        }
        _ if options.cases.is_empty() => Schedule::new(options.profile, dice.split()),
        _ => Schedule::of(&options.cases, dice.split()),
    };
    let (begin, limit) = (Instant::now(), Duration::from_secs(options.minutes * 60));
    loop {
        let step = schedule.next(begin.elapsed(), limit);
        if step.is_empty() {
            break;
        }
        let before = world.recorder.with(|records| records.faults.len());
        let _no_acts = match step[0].name {
            faults::LAST => Some(world.acting.write().await),
            _ => None,
        };
        let (first, mut others) = (dice.split(), dice.split());
        let meanwhile = async {
            for case in &step[1..] {
                faults::run(case, &world, others.split(), options.profile).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(faults::run(step[0], &world, first, options.profile), meanwhile)?;
        // The next cases need all processes, even if these cases failed.
        world.cluster.up().await?;
        world.recorder.with(|records| report::progress(records, before));
        if options.breakage.is_none() {
            // The checker reports late clients; the next fault does not wait longer.
            let _ = whole(&world, CONNECT_LIMIT).await;
        }
    }
    if let Some(breakage) = options.breakage {
        let exercised = async || {
            let now = world.recorder.now();
            world.recorder.with(|records| breakage.is_exercised(records, broken, now)).then_some(())
        };
        eventually("the breakage has had its effect", EXERCISE_LIMIT, exercised).await?;
    }
    let attacked = hostile.is_some();
    if let Some(hostile) = hostile {
        hostile.end().await;
    }
    population.end(&world).await?;
    if attacked {
        sleep(options.profile.rest()).await;
    }
    watching.abort();
    look(&world).await;
    let records = world.recorder.records();
    let verdict = checker::check(&records);
    Ok((records, verdict))
}

/// Waits until every client is connected and no request has failed or been late for a while.
async fn whole(world: &World, limit: Duration) -> anyhow::Result<()> {
    let begun = world.recorder.now();
    let whole = async || {
        let (health, now) = (world.recorder.health(), world.recorder.now());
        let listening = health.listeners > 0 && health.listening == health.listeners;
        (listening && health.troubled.max(begun) + HEALTHY_AFTER < now && world.recorder.acknowledged() > 0)
            .then_some(())
    };
    eventually("everything works", limit, whole).await
}

/// Samples the resource use of each process.
async fn watch(world: Arc<World>) {
    loop {
        look(&world).await;
        sleep(SAMPLE_INTERVAL).await;
    }
}

async fn look(world: &World) {
    for member in world.members().into_iter().filter(|member| member.0.is_ours()) {
        let Some(pid) = world.cluster.daemon(member).ok().and_then(|daemon| daemon.running()) else { continue };
        // A frozen process does not answer.
        let tasks = timeout(METRIC_LIMIT, world.metric(member, "confab_tasks")).await.ok().and_then(Result::ok);
        let Ok(usage) = Usage::of(pid) else { continue };
        let (name, tasks) = (format!("{}-{}", member.0.name(), member.1), tasks.map(|tasks| tasks as u64));
        let used = Use { name, at: world.recorder.now(), rss: usage.rss, descriptors: usage.descriptors, tasks };
        world.recorder.note(|records| records.uses.push(used));
    }
}
