//! What a client sends before CONNECT is answered.

use std::sync::atomic::Ordering;

use confab_common::Error;
use uuid::Uuid;

use super::{EVENT_OVERHEAD, Event, Socket, State};
use crate::realtime::session::Session;

/// What waits until CONNECT is answered.
pub(super) enum Held {
    Event(Uuid, Event),
    /// An event that was refused, under this acknowledgement id.
    Refusal(Option<u64>, Error),
}

impl Held {
    /// What it costs, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Event(_, event) => event.size,
            Self::Refusal(_, error) => error.detail.len() + EVENT_OVERHEAD,
        }
    }
}

impl Socket {
    /// Counts it, and keeps it.
    pub(super) fn hold(&self, session: &Session, state: &mut State, held: Held) {
        self.queued.fetch_add(held.size(), Ordering::Relaxed);
        session.outbox.hold(held.size());
        state.held.push(held);
    }
}
