//! Who hashes next. A hash takes a core for tens of milliseconds, so under a flood of logins almost all of them have to be
//! refused: the queue decides which.
//!
//! * One thread for each core, below the priority of all others, so that chat goes on.
//! * Every other turn is for clients that have logged in to that account from that address lately.
//! * Of those that wait, the address that waits least often goes first, then the name that is asked for least often, then the
//!   newest. One address, or an attack on one name, delays itself, and in a flood some logins succeed at once where a fair
//!   queue would let all of them time out.
//! * A full queue refuses the opposite end: the oldest of the address that waits most often.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use confab_common::{Error, Result};
use tokio::sync::oneshot;

/// Hashes that may wait for each core: two seconds of work.
const WAITERS_PER_CORE: usize = 64;
/// Most hashes that may wait, however many cores there are.
const MAX_WAITERS: usize = 1024;
/// Added to the nice value of the hashing threads.
const NICE: i32 = 10;

/// What the queue tells logins apart by.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The client's address.
    pub address: IpAddr,
    /// Stands for the name that is asked for.
    pub name: u64,
    /// That client has logged in to that account lately.
    pub is_known: bool,
}

struct Waiter {
    ticket: Ticket,
    work: Box<dyn FnOnce() + Send>,
}

/// A queue of hashes and the threads that work on it.
pub struct Turns(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    /// The oldest first.
    waiters: Vec<Waiter>,
    /// The next turn is for known clients.
    known_next: bool,
    is_over: bool,
}

impl Turns {
    /// Starts one thread for each core.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(cores: usize) -> std::io::Result<Self> {
        let turns = Self(Arc::new(Shared::new((cores * WAITERS_PER_CORE).min(MAX_WAITERS))));
        for _ in 0..cores {
            let shared = turns.0.clone();
            std::thread::Builder::new().name("hash".into()).spawn(move || shared.work())?;
        }
        Ok(turns)
    }

    /// Runs `work` when its turn comes; dropped before, it is not run.
    ///
    /// # Errors
    /// `unavailable` when too many wait.
    pub async fn run<T: Send + 'static>(&self, ticket: Ticket, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move || {
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        self.0.push(Waiter { ticket, work });
        receiver.await.map_err(|_| Error::unavailable("password checking"))
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.queue().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new(), capacity }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, waiter: Waiter) {
        let mut queue = self.queue();
        queue.waiters.push(waiter);
        let refused = if queue.waiters.len() > self.capacity { queue.take_last() } else { None };
        drop(queue);
        self.changed.notify_one();
        drop(refused);
    }

    fn work(&self) {
        // Where it is not allowed the hashes run like everything else.
        let _ = rustix::process::nice(NICE);
        while let Some(waiter) = self.next() {
            // A panic of one hash must not take the thread from all others; its caller finds the channel closed.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(waiter.work));
        }
    }

    /// Waits for the next turn; `None` when there is none any more.
    fn next(&self) -> Option<Waiter> {
        let mut queue = self.queue();
        loop {
            if queue.is_over {
                return None;
            }
            if let Some(waiter) = queue.take_next() {
                return Some(waiter);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    /// The waiter whose turn it is.
    fn take_next(&mut self) -> Option<Waiter> {
        let known = self.known_next;
        self.known_next = !known;
        let ranks = self.ranks();
        let next = (0..self.waiters.len()).min_by_key(|at| (self.waiters[*at].ticket.is_known != known, ranks[*at], Reverse(*at)))?;
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
