//! The order of logins. A hash takes one core for tens of milliseconds, so under a flood almost all logins must be
//! rejected. The queue decides which.
//!
//! * Every second turn is for clients that have recently logged in under the same name from the same address.
//! * Among the waiting logins, the address with the fewest waiting logins goes first, then the name with the fewest,
//!   then the newest login. A flood from one address, or an attack on one name, therefore delays only itself, and some
//!   logins succeed at once, where a first-in first-out queue would let all of them time out.
//! * A full queue rejects from the opposite end: the oldest login of the address with the most waiting logins.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use confab_common::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Logins that may wait per turn: about two seconds of work.
const WAITERS_PER_TURN: usize = 64;
/// Maximum waiting logins, independent of the number of turns.
const MAX_WAITERS: usize = 1024;

/// The properties by which the queue distinguishes logins.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    pub address: IpAddr,
    /// A hash of the name.
    pub name: u64,
    /// Whether the client has recently logged in under this name.
    pub is_known: bool,
}

struct Waiter {
    ticket: Ticket,
    sender: oneshot::Sender<Turn>,
}

/// The turns, and the queue of waiting logins.
pub struct Turns(Arc<Shared>);

/// The right to compute a hash, until it is dropped.
pub struct Turn(Arc<Shared>);

struct Shared {
    // Locked for a decision, never across an await, and never by a low-priority hashing thread.
    queue: Mutex<Queue>,
    capacity: usize,
}

struct Queue {
    /// Free turns.
    free: usize,
    /// The oldest first.
    waiters: Vec<Waiter>,
    /// Whether the next turn is for known clients.
    known_next: bool,
}

impl Turns {
    /// Creates `count` turns.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Shared::new(count, (count * WAITERS_PER_TURN).min(MAX_WAITERS))))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `unavailable` when too many logins wait.
    pub async fn take(&self, ticket: Ticket) -> Result<Turn> {
        let (sender, receiver) = oneshot::channel();
        self.0.push(Waiter { ticket, sender });
        receiver.await.map_err(|_| Error::unavailable("password checking"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.queue.lock().free += 1;
        self.0.give();
    }
}

impl Shared {
    fn new(free: usize, capacity: usize) -> Self {
        Self { queue: Mutex::new(Queue { free, waiters: Vec::new(), known_next: false }), capacity }
    }

    fn push(self: &Arc<Self>, waiter: Waiter) {
        let mut queue = self.queue.lock();
        if queue.waiters.len() == self.capacity {
            queue.waiters.retain(|waiter| !waiter.sender.is_closed());
        }
        queue.waiters.push(waiter);
        let refused = if queue.waiters.len() > self.capacity { queue.take_last() } else { None };
        drop(queue);
        drop(refused);
        self.give();
    }

    /// Gives the free turns to waiting logins.
    fn give(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue.lock();
            if queue.free == 0 {
                return;
            }
            let Some(waiter) = queue.take_next() else { return };
            // The caller may have been dropped.
            if !waiter.sender.is_closed() {
                queue.free -= 1;
                drop(queue);
                let _ = waiter.sender.send(Turn(self.clone()));
            }
        }
    }
}

impl Queue {
    /// Removes the waiter whose turn is next.
    fn take_next(&mut self) -> Option<Waiter> {
        let (known, ranks) = (self.known_next, self.ranks());
        let next = (0..self.waiters.len())
            .min_by_key(|at| (self.waiters[*at].ticket.is_known != known, ranks[*at], Reverse(*at)))?;
        self.known_next = !known;
        Some(self.waiters.remove(next))
    }

    /// Removes the waiter to reject first: unknown clients before known clients.
    fn take_last(&mut self) -> Option<Waiter> {
        let ranks = self.ranks();
        let last =
            (0..self.waiters.len()).max_by_key(|at| (!self.waiters[*at].ticket.is_known, ranks[*at], Reverse(*at)))?;
        Some(self.waiters.remove(last))
    }

    /// For each waiter: how many logins wait from the same address, and how many of those for the same name.
    fn ranks(&self) -> Vec<(usize, usize)> {
        let mut addresses = HashMap::new();
        let mut names = HashMap::new();
        for Waiter { ticket, .. } in &self.waiters {
            *addresses.entry(ticket.address).or_insert(0) += 1;
            *names.entry((ticket.address, ticket.name)).or_insert(0) += 1;
        }
        let rank = |ticket: &Ticket| (addresses[&ticket.address], names[&(ticket.address, ticket.name)]);
        self.waiters.iter().map(|waiter| rank(&waiter.ticket)).collect()
    }
}

#[cfg(test)]
#[path = "turns/tests.rs"]
mod tests;
