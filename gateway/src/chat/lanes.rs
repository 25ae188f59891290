//! The pending events of one client, in order for each room: plain data without I/O. A room with pending events has a
//! lane, and one task handles it until it is empty.

use std::collections::{HashMap, VecDeque, hash_map};

use confab_common::Error;
use confab_common::telemetry::trace::Span;
use tokio::time::Instant;
use uuid::Uuid;

use super::request::Request;

/// Bytes that a pending event occupies in addition to its text.
pub const EVENT_OVERHEAD: usize = 512;

/// A valid event that waits for its handler.
pub struct Pending {
    /// The id for the acknowledgement, if the client requests one.
    pub ack: Option<u64>,
    pub request: Request,
    /// When the event must be answered.
    pub deadline: Instant,
    /// The root span of its trace.
    pub span: Span,
    /// Bytes that the event occupies while it is pending.
    pub size: usize,
}

/// A rejected event.
pub struct Refused {
    /// The id for the acknowledgement, if the client requests one.
    pub ack: Option<u64>,
    pub error: Error,
}

impl Refused {
    /// Bytes that the answer occupies while it is pending.
    pub fn size(&self) -> usize {
        self.error.detail.len() + EVENT_OVERHEAD
    }
}

/// The lanes of one client.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<Uuid, VecDeque<Pending>>,
    /// Lanes without a task. Their tasks start when all packets that arrived together have been read.
    starting: Vec<Uuid>,
}

/// The next event of a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The lane was empty and is removed. Its task must end.
    End,
    /// An event that needs no permit.
    Free,
    /// An event that needs permits and must be answered by this time.
    Bounded(Instant),
}

impl Lanes {
    /// Appends an event to its room's lane, creating the lane if necessary.
    pub fn push(&mut self, room: Uuid, event: Pending) {
        match self.lanes.entry(room) {
            hash_map::Entry::Occupied(mut lane) => lane.get_mut().push_back(event),
            hash_map::Entry::Vacant(lane) => {
                lane.insert(VecDeque::from([event]));
                self.starting.push(room);
            }
        }
    }

    /// Returns the lanes that have needed a task since the last call.
    pub fn take_starting(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.starting)
    }

    /// Returns the kind of a lane's next event; removes an empty lane.
    pub fn next(&mut self, room: Uuid) -> Next {
        let Some(lane) = self.lanes.get(&room) else { return Next::End };
        let Some(first) = lane.front() else {
            self.lanes.remove(&room);
            if self.lanes.is_empty() {
                // Frees the memory of a burst.
                self.lanes = HashMap::new();
            }
            return Next::End;
        };
        if first.request.needs_permit() { Next::Bounded(first.deadline) } else { Next::Free }
    }

    /// The number of events at the front of a room's lane that can be handled together, at most `most`: several sends,
    /// or one event of another kind; 0 when the lane is empty.
    pub fn together(&self, room: Uuid, most: usize) -> usize {
        let Some(lane) = self.lanes.get(&room).filter(|lane| !lane.is_empty()) else { return 0 };
        lane.iter().take(most).take_while(|event| event.request.is_send()).count().max(1)
    }

    /// Removes the first `count` events of a room's lane.
    pub fn take(&mut self, room: Uuid, count: usize) -> Vec<Pending> {
        self.lanes.get_mut(&room).map_or_else(Vec::new, |lane| lane.drain(..count.min(lane.len())).collect())
    }

    /// Drops all events; returns the number of their bytes. The lanes stay until their tasks call [`next`](Self::next).
    pub fn clear(&mut self) -> usize {
        self.lanes.values_mut().flat_map(std::mem::take).map(|event| event.size).sum()
    }
}

#[cfg(test)]
mod tests;
