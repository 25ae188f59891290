//! Checks the promises of delivery: a whole cluster, stock and raw clients, every fault of the table, and a checker
//! that reads what all clients received.

mod checker;
mod clients;
mod faults;
mod history;
pub mod proxy;
mod report;
mod schedule;
mod terms;
mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

pub use checker::{Verdict, Violation};
pub use faults::{CASES, Case, named};
pub use report::print;
pub use schedule::Profile;

use self::clients::{hostile, listener, sender, stock};
use self::history::{Records, Seen, Stored, Use};
use self::schedule::{Dice, Schedule};
use self::world::World;
use crate::load::attack::usage::Usage;
use crate::plan::Role;
use crate::stock::{Socket, Stock};
use crate::wait::eventually;

/// How long one sender waits between messages.
const SEND_INTERVAL: Duration = Duration::from_millis(40);
/// Time limit until all clients are connected, at the start and after each fault.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Without trouble for this long, the system counts as healthy.
const HEALTHY_AFTER: Duration = Duration::from_millis(1500);
/// Time limit for the last acknowledgements and deliveries.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);
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

/// A way to break the promises on purpose, in programs with failpoints
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Breakage {
    /// Publish hints before the commit, which may then fail
    PublishBeforeCommit,
    /// Drop hints, and never poll the heads
    NoHintsNoHeads,
    /// Append a repeated message again
    SkipRepeatCheck,
}

impl Breakage {
    /// The cases in which the breakage does harm.
    fn cases(self) -> &'static [&'static str] {
        match self {
            Self::PublishBeforeCommit => &["message-killed-before-commit"],
            Self::NoHintsNoHeads | Self::SkipRepeatCheck => &["sent-thrice"],
        }
    }

    fn points(self) -> (Role, &'static [&'static str]) {
        match self {
            Self::PublishBeforeCommit => (Role::Message, &["publish-before-commit"]),
            Self::NoHintsNoHeads => (Role::Gateway, &["drop-hints", "skip-heads"]),
            Self::SkipRepeatCheck => (Role::Message, &["skip-repeat-check"]),
        }
    }

    /// Returns whether the checker detected the breakage itself, not only its side effects.
    pub fn is_noticed(self, verdict: &Verdict) -> bool {
        let counts = &verdict.counts;
        match self {
            Self::PublishBeforeCommit => counts.invented > 0,
            Self::NoHintsNoHeads => counts.lost > 0,
            Self::SkipRepeatCheck => counts.repeated > 0,
        }
    }
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

/// The clients that chat.
struct Population {
    senders: JoinSet<anyhow::Result<()>>,
    listeners: Vec<JoinHandle<()>>,
    _processes: Vec<Stock>,
}

impl Population {
    async fn start(world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<Self> {
        let (javascript, python) = (Stock::javascript()?, Stock::python()?);
        let (mut senders, mut listeners) = (JoinSet::new(), Vec::new());
        for _ in 0..2 {
            senders.spawn(sender::by_rest(world.clone(), world.api.signup().await?, dice.split(), SEND_INTERVAL));
            senders.spawn(sender::by_socket(world.clone(), world.api.signup().await?, dice.split(), SEND_INTERVAL));
        }
        for process in [&javascript, &python] {
            let account = world.api.signup().await?;
            let socket = stock::open(process, world, &account, stock::UPGRADE);
            senders.spawn(stock::send(world.clone(), account, socket, dice.split(), SEND_INTERVAL));
        }
        for n in 0..4 {
            let (account, receiver) = (world.api.signup().await?, world.recorder.receiver(format!("raw listener {n}")));
            listeners.push(tokio::spawn(listener::listen(world.clone(), account, receiver, n, false)));
        }
        let mut stock_listener = |name: &str, socket: Socket, recovers: bool| {
            let receiver = world.recorder.receiver(name);
            world.recorder.note(|records| records.receivers[receiver].recovers = recovers);
            listeners.push(tokio::spawn(stock::listen(world.clone(), socket, receiver)));
        };
        let account = world.api.signup().await?;
        stock_listener("JavaScript listener", stock::open(&javascript, world, &account, stock::UPGRADE), false);
        stock_listener(
            "JavaScript listener over WebSocket",
            stock::open(&javascript, world, &account, stock::WEBSOCKET),
            false,
        );
        stock_listener(
            "JavaScript listener with recovery",
            stock::open_with_recovery(&javascript, world, &account),
            true,
        );
        stock_listener("Python listener", stock::open(&python, world, &account, stock::UPGRADE), false);
        Ok(Self { senders, listeners, _processes: vec![javascript, python] })
    }

    /// Stops new messages, waits for pending ones, and waits until all messages are received.
    async fn end(&mut self, world: &Arc<World>) -> anyhow::Result<()> {
        world.ending.store(true, Ordering::Relaxed);
        let finished = async {
            while let Some(sender) = self.senders.join_next().await {
                sender??;
            }
            anyhow::Ok(())
        };
        let finished = timeout(DELIVERY_LIMIT, finished).await;
        if let Ok(finished) = finished {
            finished?;
        }
        let histories = histories(world).await?;
        let heads = histories.iter().map(|(room, history)| (*room, history.len() as u64)).collect::<HashMap<_, _>>();
        let complete = async || world.recorder.with(|records| records.all_hold(&heads)).then_some(());
        // The checker reports receivers that are incomplete.
        let _ = eventually("every receiver is complete", Duration::from_secs(15), complete).await;
        self.listeners.iter().for_each(JoinHandle::abort);
        world.recorder.note(|records| records.history = histories);
        Ok(())
    }
}

async fn histories(world: &World) -> anyhow::Result<HashMap<Uuid, Vec<Stored>>> {
    let mut histories = HashMap::new();
    for room in &world.rooms {
        let path = room.to_string();
        let read = async || world.api.history(&path, &world.owner, 200).await.ok();
        let history = eventually("history is readable", DELIVERY_LIMIT, read).await?;
        histories.insert(*room, history.iter().filter_map(stored).collect());
    }
    Ok(histories)
}

fn stored(message: &Value) -> Option<Stored> {
    let key = message["clientMessageId"].as_str().unwrap_or_default().to_owned();
    Some(Stored { seen: Seen::of(message)?, sender: message["sender"]["id"].as_str()?.parse().ok()?, key })
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
