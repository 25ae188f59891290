//! The memory in which uploads collect parts for the object store: one budget per process, shared between users.
//!
//! A part grows by doubling, and each step takes its memory from the budget. One user alone gets up to two thirds of
//! the budget; the more users upload, the less each gets. A step that does not fit waits, and so does its sender. Parts
//! that wait for each other would deadlock, so a step is taken only if the part nearest to its end can still be filled
//! afterwards.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use confab_common::metrics::LIMITS;
use confab_common::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::metrics::METRICS;

/// The first step of a part, in bytes (64 KiB).
const FIRST: usize = 64 * 1024;
/// How long a step may wait: less than the gateway's time limit for the service.
const STEP_WAIT_LIMIT: Duration = Duration::from_secs(12);

#[derive(Clone)]
pub struct Memory(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Bytes of parts being sent to the store. They become free in any case.
    under_way: usize,
    /// The bytes of each user, in parts being filled or sent.
    users: HashMap<Uuid, usize>,
    /// The parts being filled, by number.
    parts: BTreeMap<u64, Part>,
    /// Waiting steps, in order of arrival.
    waiting: Vec<Step>,
    next: u64,
}

/// A part being filled: its current size, and its full size.
struct Part {
    user: Uuid,
    has: usize,
    full: usize,
}

struct Step {
    part: u64,
    to: usize,
    taken: oneshot::Sender<()>,
}

impl Memory {
    pub fn new(bytes: usize) -> Self {
        let (users, parts) = (HashMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { free: bytes, under_way: 0, users, parts, waiting: Vec::new(), next: 0 })))
    }

    /// Returns the allocator for one upload of a user.
    pub fn parts(&self, user: Uuid) -> Parts {
        Parts { memory: self.clone(), user }
    }
}

impl State {
    /// Takes every waiting step that fits, in order.
    fn go_on(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            let step = &self.waiting[at];
            if step.taken.is_closed() {
                self.waiting.remove(at);
            } else if self.admits(step.part, step.to) {
                let step = self.waiting.remove(at);
                self.grow(step.part, step.to);
                let _ = step.taken.send(());
            } else {
                at += 1;
            }
        }
    }

    fn admits(&self, number: u64, to: usize) -> bool {
        let Some(part) = self.parts.get(&number) else { return false };
        let step = to - part.has;
        let Some(left) = self.free.checked_sub(step) else { return false };
        // Another part can be filled after this step: the memory that it still needs is free or will become free.
        let needed = self.parts.iter().filter(|(other, _)| **other != number).map(|(_, other)| other.full - other.has);
        let safe = needed.chain([part.full - to]).min().is_none_or(|needed| needed <= left + self.under_way);
        let fair = self.users.get(&part.user).copied().unwrap_or_default() + step <= 2 * left;
        safe && (fair || self.is_first_of_its_user(number, part))
    }

    /// Returns whether the part is nearest to its end among its user's parts. Such a part may continue even when its
    /// user exceeds its share, because the part then ends.
    fn is_first_of_its_user(&self, number: u64, part: &Part) -> bool {
        let same = self.parts.iter().filter(|(_, other)| other.user == part.user);
        same.min_by_key(|(other, part)| (part.full - part.has, **other)).is_some_and(|(first, _)| *first == number)
    }

    fn grow(&mut self, number: u64, to: usize) {
        if let Some(part) = self.parts.get_mut(&number) {
            let step = to - part.has;
            part.has = to;
            self.free -= step;
            *self.users.entry(part.user).or_default() += step;
            METRICS.upload_memory.increment(step as f64);
        }
    }

    fn release(&mut self, user: Uuid, bytes: usize) {
        self.free += bytes;
        METRICS.upload_memory.decrement(bytes as f64);
        if let Some(has) = self.users.get_mut(&user) {
            *has -= bytes;
            if *has == 0 {
                self.users.remove(&user);
            }
        }
        self.go_on();
    }
}

/// Allocates the parts of one upload.
pub struct Parts {
    memory: Memory,
    user: Uuid,
}

impl Parts {
    /// Returns an empty part that is full at `full` bytes.
    pub fn part(&self, full: usize) -> Filling {
        let mut state = self.memory.0.lock();
        state.next += 1;
        let number = state.next;
        state.parts.insert(number, Part { user: self.user, has: 0, full });
        Filling { memory: self.memory.clone(), user: self.user, number, full, room: 0, bytes: Vec::new() }
    }
}

pub struct Filling {
    memory: Memory,
    user: Uuid,
    number: u64,
    full: usize,
    room: usize,
    bytes: Vec<u8>,
}

impl Filling {
    /// Takes as much of the beginning of a chunk as fits; waits for memory.
    ///
    /// # Errors
    /// `unavailable` when no memory becomes free in time.
    pub async fn take(&mut self, chunk: &mut Bytes) -> Result<()> {
        while !chunk.is_empty() && !self.is_full() {
            if self.bytes.len() == self.room {
                self.grow().await?;
            }
            let piece = chunk.split_to(chunk.len().min(self.room - self.bytes.len()));
            self.bytes.extend_from_slice(&piece);
        }
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.full
    }

    /// Returns the part's bytes for sending. Their memory becomes free when the second value is dropped.
    pub fn send(mut self) -> (Bytes, UnderWay) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = self.memory.0.lock();
        state.parts.remove(&self.number);
        let room = std::mem::take(&mut self.room);
        state.under_way += room;
        // Other parts need not reserve memory for this part any more.
        state.go_on();
        drop(state);
        (bytes.into(), UnderWay { memory: self.memory.clone(), user: self.user, bytes: room })
    }

    async fn grow(&mut self) -> Result<()> {
        let to = (2 * self.room).clamp(FIRST, self.full.max(FIRST)).min(self.full);
        let taken = {
            let mut state = self.memory.0.lock();
            let (taken, outcome) = oneshot::channel();
            state.waiting.push(Step { part: self.number, to, taken });
            state.go_on();
            outcome
        };
        if !matches!(timeout(STEP_WAIT_LIMIT, taken).await, Ok(Ok(()))) {
            LIMITS.hit("upload_memory");
            return Err(Error::unavailable("memory for the upload"));
        }
        self.room = to;
        self.bytes.reserve_exact(to - self.bytes.len());
        Ok(())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut state = self.memory.0.lock();
        // A step granted at the last moment is recorded only in the state.
        if let Some(part) = state.parts.remove(&self.number) {
            state.release(self.user, part.has);
        }
    }
}

/// The memory of a part being sent.
pub struct UnderWay {
    memory: Memory,
    user: Uuid,
    bytes: usize,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.memory.0.lock();
        state.under_way -= self.bytes;
        state.release(self.user, self.bytes);
    }
}

#[cfg(test)]
mod tests;
