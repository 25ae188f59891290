//! Connection state recovery of Socket.IO without a store of sessions. Every event to a client that requested recovery
//! contains, as its last argument, the offset from which any gateway can recover the client.
//! <https://socket.io/docs/v4/connection-state-recovery>

mod offset;

use confab_socketio::Frame;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rooms::hub::Arrival;

pub use offset::Offset;

/// The offset of one client, updated when events are queued.
pub struct Recovery {
    // Held while offsets are added to frames and the frames are queued, so that offsets rise in sending order. Lock
    // order: the hub's lock, this lock, the outbox's lock.
    offset: Mutex<Offset>,
}

impl Recovery {
    /// Starts from an offset.
    pub fn new(offset: Offset) -> Self {
        Self { offset: Mutex::new(offset) }
    }

    /// The pid that the client presents when it reconnects.
    pub fn pid(&self) -> String {
        self.with(|offset| offset.pid())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Offset) -> T) -> T {
        act(&mut self.offset.lock())
    }

    /// Queues an event that belongs to no room.
    pub fn queue_event(&self, event: &Frame, queue: impl FnOnce(&[Frame])) {
        self.with(|offset| queue(&[stamp(offset, event)]));
    }

    /// Queues the event `session`, which contains only the offset, so that the client has an offset from the beginning.
    pub fn begin(&self, queue: impl FnOnce(&[Frame])) {
        self.with(|offset| queue(&[session(offset)]));
    }

    /// Queues events of a room, numbered from `first`, each with the offset after that event.
    pub fn deliver<T>(&self, room: Uuid, first: u64, frames: &[Frame], queue: impl FnOnce(&[Frame]) -> T) -> T {
        self.with(|offset| {
            let mut stamped = Vec::with_capacity(frames.len());
            stamp_all(offset, room, first, frames, &mut stamped);
            queue(&stamped)
        })
    }

    /// Queues the frames of a client's arrival in a room, and the events that the client missed meanwhile.
    ///
    /// The answer to a join contains no offset. Therefore a `session` event before the answer marks the room as
    /// joining: a client that loses its connection right after the answer cannot be recovered exactly. A second one
    /// after the answer contains the room's `seq`.
    pub fn arrive(
        &self,
        room: Uuid,
        last_seq: u64,
        arrival: &Arrival<'_>,
        missed: &[Frame],
        queue: impl FnOnce(&[Frame]),
    ) {
        self.with(|offset| {
            let mut frames = Vec::with_capacity(missed.len() + 3);
            match arrival {
                Arrival::Joined { answer, epoch } => {
                    offset.rooms.insert(room, None);
                    frames.push(session(offset));
                    frames.extend(answer.clone());
                    if offset.epoch != *epoch {
                        // All events sent before belong to a log that no longer exists.
                        offset.rooms.values_mut().for_each(|sent| *sent = None);
                        offset.epoch = *epoch;
                    }
                    offset.rooms.insert(room, Some(last_seq));
                    frames.push(session(offset));
                }
                Arrival::Restored(events) => {
                    stamp_all(offset, room, last_seq + 1 - events.len() as u64, events, &mut frames)
                }
                Arrival::Stayed => {}
            }
            stamp_all(offset, room, last_seq + 1, missed, &mut frames);
            queue(&frames);
        });
    }

    /// Removes a room from the offset and queues the new offset.
    pub fn left(&self, room: Uuid, queue: impl FnOnce(&[Frame])) {
        self.with(|offset| {
            if offset.rooms.shift_remove(&room).is_some() {
                queue(&[session(offset)]);
            }
        });
    }
}

/// The event `session`, which contains only the offset.
fn session(offset: &Offset) -> Frame {
    stamp(offset, &Frame::event("session", &serde_json::Map::new()))
}

fn stamp(offset: &Offset, event: &Frame) -> Frame {
    event.with_last_argument(&offset.encode())
}

fn stamp_all(offset: &mut Offset, room: Uuid, first: u64, events: &[Frame], stamped: &mut Vec<Frame>) {
    for (seq, event) in (first..).zip(events) {
        if let Some(sent) = offset.rooms.get_mut(&room) {
            *sent = Some(seq);
        }
        stamped.push(stamp(offset, event));
    }
}

#[cfg(test)]
mod tests;
