//! The recent events of a room, which the hub keeps while a client joins.

use confab_socketio::Frame;
use uuid::Uuid;

use crate::rooms::effect::Effect;

/// Most bytes in a tail. A join that needs more reads history again.
pub const MAX_BYTES: usize = 1024 * 1024;

#[derive(Default)]
pub struct Tail {
    events: Vec<(u64, Frame)>,
    bytes: usize,
    /// The events that take clients out of the room, by `seq`.
    effects: Vec<(u64, Effect)>,
    /// The tail begins after this `seq`.
    after: u64,
}

impl Tail {
    /// Begins the tail after this `seq`.
    pub fn begin(&mut self, after: u64) {
        self.after = after;
    }

    /// Adds events, numbered from `first`; `effect` is that of the last one. Drops all events if they are too large.
    pub fn keep(&mut self, first: u64, frames: &[Frame], effect: &Effect) {
        let last = first + frames.len() as u64 - 1;
        for (seq, frame) in (first..).zip(frames) {
            self.bytes += frame.websocket().len();
            self.events.push((seq, frame.clone()));
        }
        if effect.is_some() {
            self.effects.push((last, effect.clone()));
        }
        if self.bytes > MAX_BYTES {
            self.clear();
            self.after = last;
        }
    }

    /// Whether the tail has all events above `last_seq`.
    pub fn covers(&self, last_seq: u64) -> bool {
        self.after <= last_seq
    }

    /// Whether an event above `last_seq` takes this user's clients out of the room.
    pub fn takes_out(&self, user: Option<Uuid>, last_seq: u64) -> bool {
        self.effects.iter().any(|(seq, effect)| *seq > last_seq && effect.takes_out(user))
    }

    /// The events above `last_seq`.
    pub fn above(&self, last_seq: u64) -> Vec<Frame> {
        self.events.iter().filter(|(seq, _)| *seq > last_seq).map(|(_, frame)| frame.clone()).collect()
    }

    /// Drops all events and frees their memory.
    pub fn clear(&mut self) {
        *self = Self { after: self.after, ..Self::default() };
    }

    /// Panics when an invariant does not hold.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        assert_eq!(self.bytes, self.events.iter().map(|(_, frame)| frame.websocket().len()).sum::<usize>());
        assert!(self.events.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "a tail has no holes");
        let is_kept = |seq: &u64| self.events.binary_search_by_key(seq, |(kept, _)| *kept).is_ok();
        assert!(self.effects.iter().all(|(seq, effect)| is_kept(seq) && effect.is_some()));
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.effects.is_empty()
    }
}
