//! Socket.IO's connection state recovery without a store of sessions: every event to a client that asked for recovery
//! carries, as its last argument, the offset from which any gateway can recover the client.
//! <https://socket.io/docs/v4/connection-state-recovery>

mod offset;

use confab_socketio::Frame;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rooms::hub::Arrival;

pub use offset::Offset;

/// What a client has been sent, recorded as it is queued.
pub struct Recovery {
    // Held while frames are stamped and queued, so that the offsets rise in sending order. Taken within the
    // hub's locks, and around the outbox's.
    offset: Mutex<Offset>,
}

impl Recovery {
    /// Continues from an offset.
    pub fn new(offset: Offset) -> Self {
        Self { offset: Mutex::new(offset) }
    }

    /// The id under which the client reconnects.
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

    /// Queues the event that only carries the offset, so that the client has an offset from the beginning.
    pub fn begin(&self, queue: impl FnOnce(&[Frame])) {
        self.with(|offset| queue(&[session(offset)]));
    }

    /// Queues events of a room, numbered from `first`, each with the offset of a client that has received it.
    pub fn deliver<T>(&self, room: Uuid, first: u64, frames: &[Frame], queue: impl FnOnce(&[Frame]) -> T) -> T {
        self.with(|offset| {
            let mut stamped = Vec::with_capacity(frames.len());
            stamp_all(offset, room, first, frames, &mut stamped);
            queue(&stamped)
        })
    }

    /// Queues what a client's arrival in a room brings, and the events that it missed meanwhile.
    ///
    /// The answer to a join carries no offset. So the room is marked as joining before the answer, because a client
    /// that loses its connection right after the answer cannot be recovered exactly, and its number follows the answer.
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
                        // Everything sent before belongs to a log that no longer exists.
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

    /// The client is no longer in a room.
    pub fn left(&self, room: Uuid, queue: impl FnOnce(&[Frame])) {
        self.with(|offset| {
            if offset.rooms.shift_remove(&room).is_some() {
                queue(&[session(offset)]);
            }
        });
    }
}

/// The event that only carries the offset.
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
