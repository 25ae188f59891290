//! The order of searches. Few searches run at once. Users take turns, so that a user who searches often delays only
//! their own searches.
//!
//! * One user has at most half of the permits, so that another user finds a free one.
//! * Each turn goes to the next user in a ring, for the oldest of that user's searches.
//! * The queue is short. A full queue rejects the newest search of the user with the most waiting searches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum waiting searches.
const MOST_WAITING: usize = 64;
/// Maximum waiting searches of one user.
const MOST_WAITING_OF_ONE: usize = 8;
/// Longest wait of a search.
const TURN_WAIT_LIMIT: Duration = Duration::from_secs(1);
/// When a client may repeat a rejected search.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The user who searches; all anonymous callers are one caller.
pub type Caller = Option<Uuid>;

/// The turns for searches.
pub struct Turns(Arc<Shared>);

struct Shared {
    places: usize,
    // Locked to read or change the queue, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One entry per running search.
    running: Vec<Caller>,
    /// The ring of waiting callers, the next caller in front. Each has its searches, the oldest in front.
    waiting: VecDeque<(Caller, VecDeque<oneshot::Sender<Turn>>)>,
}

/// The permit of a running search; when it is dropped, the next search gets it.
pub struct Turn {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Turns {
    /// Creates this number of permits.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Shared { places, state: Mutex::default() }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `unavailable` when too many searches wait, or after one second.
    pub async fn take(&self, caller: Caller) -> Result<Turn> {
        let (sender, turn) = oneshot::channel();
        let queued = self.0.state.lock().queue(caller, sender);
        self.0.hand_out();
        let turn = if queued { timeout(TURN_WAIT_LIMIT, turn).await.ok().and_then(Result::ok) } else { None };
        turn.ok_or_else(refusal)
    }
}

fn refusal() -> Error {
    LIMITS.hit("searches");
    Error::new(Code::Unavailable, "too many searches are waiting; try again").retry_in(RETRY_AFTER)
}

impl Shared {
    /// Gives free permits to waiting searches.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let Some((caller, sender)) = self.state.lock().next(self.places) else { return };
            // If the caller has been dropped, the turn is dropped too, which frees the permit.
            let _ = sender.send(Turn { shared: self.clone(), caller });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.state.lock().end(self.caller);
        self.shared.hand_out();
    }
}

impl State {
    /// Queues a search; returns whether there was room for it.
    fn queue(&mut self, caller: Caller, sender: oneshot::Sender<Turn>) -> bool {
        self.forget_those_that_left();
        let own = self.waiting.iter().position(|(waiting, _)| *waiting == caller);
        let count = own.map_or(0, |at| self.waiting[at].1.len());
        if count >= MOST_WAITING_OF_ONE || (self.is_full() && !self.refuse_one_of_more_than(count)) {
            return false;
        }
        match own {
            Some(at) => self.waiting[at].1.push_back(sender),
            None => self.waiting.push_back((caller, [sender].into())),
        }
        true
    }

    fn is_full(&self) -> bool {
        self.waiting.iter().map(|(_, searches)| searches.len()).sum::<usize>() >= MOST_WAITING
    }

    /// Rejects the newest search of the caller with the most searches. Returns `false` if that caller would not have
    /// more than the new caller.
    fn refuse_one_of_more_than(&mut self, count: usize) -> bool {
        let most = self.waiting.iter_mut().map(|(_, searches)| searches).max_by_key(|searches| searches.len());
        // Only from a caller with at least two searches, so that each caller keeps one.
        most.filter(|searches| searches.len() > count + 1).and_then(VecDeque::pop_back).is_some()
    }

    fn forget_those_that_left(&mut self) {
        self.waiting.iter_mut().for_each(|(_, searches)| searches.retain(|sender| !sender.is_closed()));
        self.waiting.retain(|(_, searches)| !searches.is_empty());
    }

    /// Removes the next search if a permit is free, and counts it as running.
    fn next(&mut self, places: usize) -> Option<(Caller, oneshot::Sender<Turn>)> {
        self.forget_those_that_left();
        if self.running.len() >= places {
            return None;
        }
        let share = places.div_ceil(2);
        let is_below = |caller: &Caller| self.running.iter().filter(|running| *running == caller).count() < share;
        let at = self.waiting.iter().position(|(caller, _)| is_below(caller))?;
        let (caller, mut searches) = self.waiting.remove(at)?;
        let search = searches.pop_front()?;
        if !searches.is_empty() {
            self.waiting.push_back((caller, searches));
        }
        self.running.push(caller);
        Some((caller, search))
    }

    fn end(&mut self, caller: Caller) {
        if let Some(at) = self.running.iter().position(|running| *running == caller) {
            self.running.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests;
