//! Threads that run sockets through the phases of a scenario.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use parking_lot::{Mutex, MutexGuard};

use super::conversation::Conversation;
use super::crowd::{Crowd, Target};
use super::histogram::Histogram;
use super::options::say;

/// Time limit until the next socket becomes ready; then the scenario fails.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// How long a turn waits for input before it checks the phase.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often measurements are published.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub struct Member {
    pub target: Target,
    /// Its loopback address, if not the default.
    pub source: Option<Ipv4Addr>,
    pub token: Arc<str>,
    /// The room that it joins or sends to.
    pub room: Option<Arc<str>>,
    pub joins: bool,
    /// How many of its messages are unacknowledged at any time; 0: it only listens.
    pub in_flight: usize,
}

/// Measurements of a thread's sockets since they were last taken.
#[derive(Debug, Default)]
pub struct Counts {
    pub deliveries: u64,
    pub acks: u64,
    pub refusals: u64,
    /// Messages that did not have the next `seq` of their room.
    pub violations: u64,
    /// Sockets that the server closed.
    pub closed: u64,
    /// The time from the beginning of a connection until it is ready.
    pub ready_time: Histogram,
    /// The time from the send to each receiver.
    pub delivery_time: Histogram,
    /// The time from the send to its acknowledgement.
    pub ack_time: Histogram,
    /// The first fault as text.
    pub fault: Option<String>,
}

impl Counts {
    /// Keeps the text of the first fault.
    pub fn blame(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }

    fn merge(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.acks += other.acks;
        self.refusals += other.refusals;
        self.violations += other.violations;
        self.closed += other.closed;
        self.ready_time.merge(&other.ready_time);
        self.delivery_time.merge(&other.delivery_time);
        self.ack_time.merge(&other.ack_time);
        self.fault = self.fault.take().or(other.fault);
    }

    /// Returns the faults as text.
    pub fn faults(&self) -> Vec<String> {
        let kinds = [
            (self.violations, "messages out of order, lost or doubled"),
            (self.refusals, "sends refused"),
            (self.closed, "sockets closed"),
        ];
        let mut faults = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>();
        if let (false, Some(first)) = (faults.is_empty(), &self.fault) {
            faults.push(format!("the first: {first}"));
        }
        faults
    }
}

/// The current phase of the sockets; at first they connect.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Phase {
    Speaking = 1,
    Draining,
    Over,
}

#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    ready: AtomicUsize,
    unanswered: AtomicUsize,
    counts: Mutex<Counts>,
}

impl Shared {
    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock()
    }
}

/// The last message of its room that a socket received.
pub type Seen = (Arc<str>, u64);

type Thread = JoinHandle<anyhow::Result<Vec<Seen>>>;

/// All threads of a scenario.
pub struct Crew {
    workers: Vec<(Arc<Shared>, Thread)>,
    begin: Instant,
}

impl Crew {
    /// Begins to connect the members; neighbours share a thread.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn open(members: Vec<Member>, threads: usize, connecting: usize) -> anyhow::Result<Self> {
        let begin = Instant::now();
        let share = members.len().div_ceil(threads).max(1);
        let spawn = |members: &[Member]| {
            let (shared, members) = (Arc::<Shared>::default(), members.to_vec());
            let (theirs, connecting) = (shared.clone(), connecting.div_ceil(threads));
            let work = move || run(members, connecting, begin, &theirs);
            Ok((shared, thread::Builder::new().name("load".into()).spawn(work)?))
        };
        Ok(Self { workers: members.chunks(share).map(spawn).collect::<anyhow::Result<_>>()?, begin })
    }

    /// Waits until `count` sockets are ready. Returns the time since the beginning.
    ///
    /// # Errors
    /// When a socket is closed, or no further socket becomes ready within 15 s.
    pub fn ready(&self, count: usize) -> anyhow::Result<Duration> {
        let mut last = (0, Instant::now());
        let mut published = Instant::now();
        loop {
            let ready = self.workers.iter().map(|(shared, _)| shared.ready.load(Ordering::Acquire)).sum();
            let faults = self.workers.iter().flat_map(|(shared, _)| shared.counts().faults()).collect::<Vec<_>>();
            if !faults.is_empty() {
                bail!("{}", faults.join("; "));
            }
            self.check_threads()?;
            if ready == count {
                return Ok(self.begin.elapsed());
            }
            if ready > last.0 {
                last = (ready, Instant::now());
            } else if last.1.elapsed() > READY_LIMIT {
                bail!("only {ready} of {count} sockets became ready");
            }
            if published.elapsed() > Duration::from_secs(1) {
                published = Instant::now();
                say(&format!("{ready} of {count} sockets ready…"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts the senders.
    pub fn speak(&self) {
        self.go(Phase::Speaking);
    }

    /// Returns the measurements since the last call.
    pub fn take(&self) -> Counts {
        self.workers.iter().fold(Counts::default(), |mut all, (shared, _)| {
            all.merge(std::mem::take(&mut *shared.counts()));
            all
        })
    }

    /// Stops sending, waits until everything has arrived, and closes all sockets. Returns the measurements since the
    /// last call; a socket that lacks a message that other sockets received is a fault.
    ///
    /// # Errors
    /// When a thread failed.
    pub fn finish(self) -> anyhow::Result<Counts> {
        self.go(Phase::Draining);
        let mut counts = Counts::default();
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            thread::sleep(10 * POLL_INTERVAL);
            let more = self.take();
            let unanswered =
                self.workers.iter().map(|(shared, _)| shared.unanswered.load(Ordering::Acquire)).sum::<usize>();
            let quiet = more.deliveries == 0 && unanswered == 0;
            counts.merge(more);
            if quiet || Instant::now() > deadline {
                counts.refusals += unanswered as u64;
                break;
            }
        }
        self.go(Phase::Over);
        let mut seen = Vec::new();
        for (_, worker) in self.workers {
            seen.extend(worker.join().ok().context("a thread of the load generator panicked")??);
        }
        let mut heads = std::collections::HashMap::<&str, u64>::new();
        for (room, seq) in &seen {
            let head = heads.entry(room).or_default();
            *head = (*head).max(*seq);
        }
        let behind = seen.iter().filter(|(room, seq)| heads[&**room] != *seq).count();
        if behind > 0 {
            counts.violations += behind as u64;
            counts.blame(|| format!("{behind} sockets lack the last message of their room"));
        }
        Ok(counts)
    }

    fn go(&self, phase: Phase) {
        self.workers.iter().for_each(|(shared, _)| shared.phase.store(phase as u8, Ordering::Release));
    }

    fn check_threads(&self) -> anyhow::Result<()> {
        if self.workers.iter().any(|(shared, worker)| worker.is_finished() && !shared.is(Phase::Over)) {
            bail!("the load generator cannot continue; its last lines are above");
        }
        Ok(())
    }
}

fn run(members: Vec<Member>, connecting: usize, epoch: Instant, shared: &Shared) -> anyhow::Result<Vec<Seen>> {
    work(members, connecting, epoch, shared).inspect_err(|error| say(&format!("{error:#}")))
}

fn work(members: Vec<Member>, connecting: usize, epoch: Instant, shared: &Shared) -> anyhow::Result<Vec<Seen>> {
    let mut crowd = Crowd::new()?;
    let mut conversation = Conversation::new(&members, epoch);
    let (mut speaking, mut published) = (false, Instant::now());
    while !shared.is(Phase::Over) {
        while crowd.len() < members.len() && crowd.len() < conversation.ready + connecting {
            let member = &members[crowd.len()];
            crowd.open(&member.target, member.source, member.token.clone())?;
            conversation.opened(Instant::now());
        }
        let speaks = shared.is(Phase::Speaking);
        conversation.stopped = !speaks;
        if speaks && !speaking {
            speaking = true;
            conversation.begin(&mut crowd);
        }
        crowd.turn(&mut conversation, POLL_INTERVAL)?;
        // Not at every turn: adding up percentiles takes a while.
        if published.elapsed() >= PUBLISH_EVERY {
            published = Instant::now();
            shared.counts().merge(std::mem::take(&mut conversation.counts));
        }
        shared.ready.store(conversation.ready, Ordering::Release);
        shared.unanswered.store(conversation.unanswered, Ordering::Release);
    }
    Ok(conversation.seen())
}
