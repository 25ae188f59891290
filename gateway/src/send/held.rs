//! The sends that the message service rejected with `unavailable`, which means that nothing was done, or because of their
//! credentials. They wait here for the next attempt, and later sends of the same senders to the same rooms wait behind
//! them. All other sends go on.
//!
//! An attempt contains the first held send of each line only: the service may reject it and store a later one.

use std::collections::{HashSet, VecDeque};

use confab_common::backoff::Backoff;
use tokio::time::{Instant, sleep_until};

use super::job::{Batch, Job, Line};
use crate::backoff::{is_worth_it, pauses};
use crate::metrics::METRICS;

pub struct Held {
    jobs: VecDeque<Job>,
    /// The lines of `jobs`.
    lines: HashSet<Line>,
    /// The lines whose first sends are in the present batch.
    tried: HashSet<Line>,
    backoff: Backoff,
    /// When the next attempt begins.
    due: Instant,
}

impl Held {
    pub fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            lines: HashSet::new(),
            tried: HashSet::new(),
            backoff: pauses(),
            due: Instant::now(),
        }
    }

    /// Returns the sends that may be appended now; holds those behind a send that is held.
    pub fn pass(&mut self, jobs: VecDeque<Job>) -> VecDeque<Job> {
        if self.jobs.is_empty() {
            return jobs;
        }
        let (held, free) = jobs.into_iter().partition::<VecDeque<_>, _>(|job| self.lines.contains(&job.line));
        self.jobs.extend(held);
        free
    }

    /// Waits for the next attempt; for ever when nothing is held.
    pub async fn due(&self) {
        if self.jobs.is_empty() {
            return std::future::pending().await;
        }
        sleep_until(self.due).await;
    }

    /// Moves the first send of each line into the batch if the next attempt is due; returns whether it is.
    pub fn take_due(&mut self, batch: &mut Batch) -> bool {
        if self.jobs.is_empty() || Instant::now() < self.due {
            return false;
        }
        self.release();
        let mut lines = HashSet::new();
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (mut first, later) = jobs.partition::<VecDeque<_>, _>(|job| lines.insert(job.line));
        batch.fill(&mut first);
        first.extend(later);
        self.jobs = first;
        METRICS.send_repeats.increment(batch.jobs.len() as u64);
        self.tried = batch.jobs.iter().map(|job| job.line).collect();
        true
    }

    /// Holds the rejected sends of a batch. `due` says whether the batch had sends whose attempt was due: then their
    /// success or failure decides when the next attempt begins. Returns the sends that need not wait any more.
    pub fn put_back(&mut self, rejected: Vec<Job>, due: bool) -> VecDeque<Job> {
        let now = Instant::now();
        let mut free = std::mem::take(&mut self.tried);
        rejected.iter().for_each(|job| _ = free.remove(&job.line));
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (freed, held) = jobs.partition(|job| free.contains(&job.line));
        self.jobs = held;
        if rejected.is_empty() {
            if due {
                self.backoff.reset();
                self.due = now;
            }
            self.renew_lines();
            return freed;
        }
        if self.jobs.is_empty() && !due {
            self.backoff.reset();
        }
        if self.jobs.is_empty() || due {
            self.due = now + self.backoff.pause();
        }
        rejected.into_iter().rev().for_each(|job| self.jobs.push_front(job));
        self.release();
        self.renew_lines();
        freed
    }

    /// Answers the sends whose deadline is too near for the next attempt, and drops those without a sender.
    fn release(&mut self) {
        let (now, due) = (Instant::now(), self.due.max(Instant::now()));
        for job in std::mem::take(&mut self.jobs) {
            if is_worth_it(due, job.deadline) && job.is_expected(now) {
                self.jobs.push_back(job);
            } else {
                job.refuse();
            }
        }
    }

    fn renew_lines(&mut self) {
        self.lines = self.jobs.iter().map(|job| job.line).collect();
    }
}
