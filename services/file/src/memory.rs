//! The memory in which uploads collect the parts for the object store: one budget per process, shared between users.
//!
//! A part grows by doubling, and each step takes what it needs from the budget. A user alone gets up to two thirds of
//! it; the more users there are, the less each gets. A step that does not fit waits, and the sender with it. Parts that
//! wait for each other would deadlock, so a step is taken only if the part nearest to its end could still be filled
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

/// The first step of a part, in bytes.
const FIRST: usize = 64 * 1024;
/// How long a step may wait: less than the gateway waits for the service.
const WAIT: Duration = Duration::from_secs(12);

/// The budget of a process.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Bytes of parts on their way to the store: these will become free whatever else happens.
    under_way: usize,
    /// The bytes of each user, in parts that are being filled or sent.
    users: HashMap<Uuid, usize>,
    /// The parts being filled, by number.
    parts: BTreeMap<u64, Part>,
    /// Waiting steps, in order of arrival.
    waiting: Vec<Step>,
    next: u64,
}

/// A part being filled: its present size, and its size when full.
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
    /// A budget of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let (users, parts) = (HashMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { free: bytes, under_way: 0, users, parts, waiting: Vec::new(), next: 0 })))
    }

    /// The parts of one upload of a user.
    pub fn parts(&self, user: Uuid) -> Parts {
        Parts { memory: self.clone(), user }
    }
}

impl State {
    /// Takes every waiting step that can be taken, in order.
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
        // Some part can be filled after this: the memory that it still needs is free or will become free.
        let needed = self.parts.iter().filter(|(other, _)| **other != number).map(|(_, other)| other.full - other.has);
        let safe = needed.chain([part.full - to]).min().is_none_or(|needed| needed <= left + self.under_way);
        let fair = self.users.get(&part.user).copied().unwrap_or_default() + step <= 2 * left;
        safe && (fair || self.is_first_of_its_user(number, part))
    }

    /// Whether the part is the nearest to its end of its user's parts: such a part may continue even when its user has
    /// too much, because that ends it.
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
    /// An empty part that is full at `full` bytes.
    pub fn part(&self, full: usize) -> Filling {
        let mut state = self.memory.0.lock();
        state.next += 1;
        let number = state.next;
        state.parts.insert(number, Part { user: self.user, has: 0, full });
        Filling { memory: self.memory.clone(), user: self.user, number, full, room: 0, bytes: Vec::new() }
    }
}

/// A part being filled.
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
    /// `unavailable` when there is no memory in time.
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

    /// Whether the part is full.
    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.full
    }

    /// The part's bytes, to be sent; their memory becomes free when the second value is dropped.
    pub fn send(mut self) -> (Bytes, UnderWay) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = self.memory.0.lock();
        state.parts.remove(&self.number);
        let room = std::mem::take(&mut self.room);
        state.under_way += room;
        // Other parts need not leave room for this one any more.
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
        if !matches!(timeout(WAIT, taken).await, Ok(Ok(()))) {
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
        // A step granted at the last moment is only in the state.
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
