//! The sends of a lane, and the batches in which they are appended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use confab_common::telemetry::trace::Span;
use confab_common::{Error, Result};
use confab_identity::credential::Credential;
use confab_proto::message::v1::{Event, NewEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// Most events, and most bytes, that a lane has.
pub const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Most events, and most bytes, in one append.
pub const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes counted for an attached file: about the size of its metadata in the answer.
const FILE: usize = 1024;

/// The outcome of an event that is committed, or of a change that would change nothing.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The message as the log stores it; of a change, the message in a state at or after the change.
    pub message: Event,
    /// `true` when an earlier send with the same id had already stored the event.
    pub duplicate: bool,
}

/// The room and the sender of an event. Events with the same ones keep their order.
pub type Line = (Uuid, Uuid);

/// A send without an answer.
pub struct Job {
    pub event: NewEvent,
    /// The credential of the sender. The event contains its digest.
    pub credential: Credential,
    pub line: Line,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<Sent>>,
    /// Whether a replica may have stored the event in an attempt without an answer.
    pub is_uncertain: bool,
    /// How often a replica has rejected the credential, which this gateway has verified.
    pub refusals: u32,
    /// The trace span of the send.
    pub span: Span,
    pub space: Space,
}

impl Job {
    /// Whether the sender still waits for the answer.
    pub fn is_expected(&self, now: Instant) -> bool {
        now < self.deadline && !self.answer.is_closed()
    }

    /// Answers that the service is unavailable, which means that nothing was stored; or that the outcome is unknown.
    pub fn refuse(self) {
        self.refuse_with(Error::unavailable("the message service"));
    }

    /// Answers with this error, which means that the last attempt stored nothing; or that the outcome is unknown.
    pub fn refuse_with(self, error: Error) {
        let error = if self.is_uncertain { Error::timeout() } else { error };
        let _ = self.answer.send(Err(error));
    }
}

/// What a lane has: events that are queued, held or in flight.
#[derive(Default)]
pub struct Load {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    /// Makes space for an event; `None` when the lane is full.
    pub fn add(self: &Arc<Self>, event: &NewEvent) -> Option<Space> {
        let data =
            event.message_data.len() + event.change.as_ref().and_then(|it| it.data.as_ref()).map_or(0, String::len);
        let bytes = event.content.len() + data + event.file_ids.len() * FILE;
        let full =
            self.events.load(Ordering::Relaxed) >= QUEUE || self.bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES;
        if full {
            return None;
        }
        self.events.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Space { load: self.clone(), bytes })
    }
}

/// The space of one event in its lane; returned when dropped.
pub struct Space {
    load: Arc<Load>,
    bytes: usize,
}

impl Drop for Space {
    fn drop(&mut self) {
        self.load.events.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The sends of one append.
#[derive(Default)]
pub struct Batch {
    pub jobs: Vec<Job>,
    bytes: usize,
}

impl Batch {
    /// Moves sends from the front of a queue into the batch while they fit. The first one always fits.
    pub fn fill(&mut self, queue: &mut VecDeque<Job>) {
        while self.jobs.len() < BATCH
            && let Some(job) = queue.pop_front()
        {
            if !self.jobs.is_empty() && self.bytes + job.space.bytes > BATCH_BYTES {
                queue.push_front(job);
                return;
            }
            self.bytes += job.space.bytes;
            self.jobs.push(job);
        }
    }
}
