//! The events of one client, in order for each room: a room with waiting events has a lane, and a task that works on
//! it.

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::{Event, Held, MAX_QUEUED, MAX_SENDS, Socket, State};
use crate::memory::Sends;
use crate::realtime::events;
use crate::realtime::session::Session;

/// Events that are handled together, with the permits of the socket and of its user, where those are required.
type Work<'a> = (Vec<Event>, Option<(SemaphorePermit<'a>, Sends)>);

impl Socket {
    /// Drops the waiting events: their client's identity is no longer valid.
    pub fn drop_events(&self, session: &Session) {
        let mut state = self.state.lock();
        let held: usize = std::mem::take(&mut state.held).iter().map(Held::size).sum();
        let size = held + state.lanes.values_mut().flat_map(std::mem::take).map(|event| event.size).sum::<usize>();
        drop(state);
        self.queued.fetch_sub(size, Ordering::Relaxed);
        session.outbox.release(size);
        self.drained.notify_waiters();
    }

    /// Starts handling the events that have arrived since the last call: sends that arrived together go to the log
    /// together.
    pub fn start_lanes(&self, session: &Arc<Session>) {
        let starting = std::mem::take(&mut self.state.lock().starting);
        for room in starting {
            tokio::spawn(work(session.clone(), room));
        }
    }

    /// The next events of a room, once those before are done: all queued sends, as far as permits allow, or one other
    /// event. `None` ends the room's lane.
    pub(super) async fn next(&self, session: &Session, room: Uuid) -> Option<Work<'_>> {
        loop {
            let deadline = {
                let mut state = self.state.lock();
                let lane = state.lanes.get_mut(&room)?;
                let Some(first) = lane.front() else {
                    state.lanes.remove(&room);
                    if state.lanes.is_empty() {
                        // The memory of a burst is freed.
                        state.lanes = HashMap::new();
                    }
                    return None;
                };
                if !first.request.takes_turn() {
                    return lane.pop_front().map(|event| (vec![event], None));
                }
                first.deadline
            };
            let mut turn = self.sends.acquire().await.ok()?;
            session.outbox.roomy().await;
            let _ = timeout_at(deadline, session.outbox.within_share("send")).await;
            let mut of_user = session.outbox.share().begin_send().await;
            let mut state = self.state.lock();
            // The events may have been dropped meanwhile.
            let Some(lane) = state.lanes.get_mut(&room).filter(|lane| !lane.is_empty()) else { continue };
            let most = MAX_SENDS.min(1 + self.sends.available_permits());
            let sends = lane.iter().take(most).take_while(|event| event.request.is_send()).count().max(1);
            let more = of_user.begin_more(sends - 1);
            let together = match self.sends.try_acquire_many(more as u32) {
                Ok(others) => {
                    turn.merge(others);
                    1 + more
                }
                Err(_) => 1,
            };
            return Some((lane.drain(..together).collect(), Some((turn, of_user))));
        }
    }

    pub(super) fn done(&self, session: &Session, size: usize) {
        session.outbox.release(size);
        let before = self.queued.fetch_sub(size, Ordering::Relaxed);
        if before == size || (before > MAX_QUEUED && before - size <= MAX_QUEUED) {
            self.drained.notify_waiters();
            session.outbox.nudge();
        }
    }
}

/// Appends an event to its room's lane, creating the lane if necessary.
pub(super) fn dispatch(state: &mut State, room: Uuid, event: Event) {
    match state.lanes.entry(room) {
        hash_map::Entry::Occupied(mut lane) => lane.get_mut().push_back(event),
        hash_map::Entry::Vacant(lane) => {
            lane.insert(VecDeque::from([event]));
            state.starting.push(room);
        }
    }
}

async fn work(session: Arc<Session>, room: Uuid) {
    while let Some((events, turn)) = session.socket.next(&session, room).await {
        let size = events.iter().map(|event| event.size).sum();
        // Boxed: thousands of lanes may wait for their turn, few have events under way.
        Box::pin(events::handle(&session, room, events)).await;
        drop(turn);
        session.socket.done(&session, size);
    }
}
