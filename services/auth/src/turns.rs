//! Which login is next. A hash takes a core for tens of milliseconds, so under a flood of logins almost all of them have to be
//! refused: the queue decides which.
//!
//! * Every other turn is for clients that have logged in under that name from that address lately.
//! * Of those that wait, the address that waits least often goes first, then the name that is asked for least often, then the
//!   newest. One address, or an attack on one name, delays itself, and in a flood some logins succeed at once where a fair
//!   queue would let all of them time out.
//! * A full queue refuses the opposite end: the oldest of the address that waits most often.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use confab_common::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Logins that may wait for each turn: two seconds of work.
const WAITERS_PER_TURN: usize = 64;
/// Most logins that may wait, however many turns there are.
const MAX_WAITERS: usize = 1024;

/// What the queue distinguishes logins by.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The client's address.
    pub address: IpAddr,
    /// Stands for the name that is asked for.
    pub name: u64,
    /// That client has logged in under that name lately.
    pub is_known: bool,
}

struct Waiter {
    ticket: Ticket,
    sender: oneshot::Sender<Turn>,
}

/// The turns, and the queue of those that wait for one.
pub struct Turns(Arc<Shared>);

/// The right to hash, until it is dropped.
pub struct Turn(Arc<Shared>);

struct Shared {
    // Held for a decision, never across an await, and never by a thread that the system lets wait.
    queue: Mutex<Queue>,
    capacity: usize,
}

struct Queue {
    /// Turns that no login has.
    free: usize,
    /// The oldest first.
    waiters: Vec<Waiter>,
    /// The next turn is for known clients.
    known_next: bool,
}

impl Turns {
    /// `count` turns at once.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Shared::new(count, (count * WAITERS_PER_TURN).min(MAX_WAITERS))))
    }

    /// A turn, when it has come.
    ///
    /// # Errors
    /// `unavailable` when too many wait.
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

    /// Gives the free turns to those that wait.
    fn give(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue.lock();
            if queue.free == 0 {
                return;
            }
            let Some(waiter) = queue.take_next() else { return };
            // Its caller may have given up.
            if !waiter.sender.is_closed() {
                queue.free -= 1;
                drop(queue);
                let _ = waiter.sender.send(Turn(self.clone()));
            }
        }
    }
}

impl Queue {
    /// The waiter whose turn it is.
    fn take_next(&mut self) -> Option<Waiter> {
        let (known, ranks) = (self.known_next, self.ranks());
        let next = (0..self.waiters.len()).min_by_key(|at| (self.waiters[*at].ticket.is_known != known, ranks[*at], Reverse(*at)))?;
        self.known_next = !known;
        Some(self.waiters.remove(next))
    }

    /// The waiter that is refused first: strangers before known clients.
    fn take_last(&mut self) -> Option<Waiter> {
        let ranks = self.ranks();
        let last = (0..self.waiters.len()).max_by_key(|at| (!self.waiters[*at].ticket.is_known, ranks[*at], Reverse(*at)))?;
        Some(self.waiters.remove(last))
    }

    /// For each waiter, how many wait for the same address, and how many of these for the same name.
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
