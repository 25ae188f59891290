//! Announces files in their rooms: appends the event of each pending file until the log has it or rejects it
//! permanently.
//!
//! Any number of replicas and calls may relay one file at once, without a lock: the event's id is in the file's row, so
//! a second append is a repeat and changes nothing.

use std::sync::Arc;

use confab_common::clock::now_ms;
use confab_common::grpc::{MAX_MESSAGE, Transport, request};
use confab_common::outbox::{self, BATCH, DELIVERY, Swept, TURN_LIMIT};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::outcome;
use confab_proto::message::v1::{AppendRequest, Kind, NewEvent, Outcome};
use futures::future::join_all;
use uuid::Uuid;

use crate::convert;
use crate::rights::Rights;
use crate::store::{File, Store};

pub use confab_proto::message::v1::Event;

/// How long a file waits for the log to open its room, or to learn that its uploader is a member (24 h): longer than any
/// outage of the log. After that, the log has probably lost the room.
const LOG_BEHIND_LIMIT_MS: i64 = 24 * 3600 * 1000;

/// Relays the events of files to the log.
pub struct Relay {
    store: Arc<dyn Store>,
    message: MessageServiceClient<Transport>,
    rights: Rights,
}

impl Relay {
    pub fn new(store: Arc<dyn Store>, message: Transport, rights: Rights) -> Self {
        let message = MessageServiceClient::new(message)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { store, message, rights }
    }

    /// Appends the event of a file that was uploaded to a room, and retries until the log has it; the file is then
    /// ready. May be dropped at any time: the sweep continues.
    ///
    /// # Errors
    /// When the log rejects the event permanently; the file is then deleted, unless it was ready before.
    pub async fn relay(&self, file: &File) -> Result<Event> {
        outbox::deliver(|| async {
            match self.append(std::slice::from_ref(file)).await.map(|mut verdicts| verdicts.pop()) {
                Ok(Some(Ok(event))) => return Some(Ok(event)),
                Ok(Some(Err(refusal))) if is_final(refusal.code) => return Some(Err(refusal)),
                Ok(Some(Err(error))) | Err(error) => {
                    tracing::debug!(file = %file.id, %error, "an event waits for the log")
                }
                Ok(None) => {}
            }
            None
        })
        .await
    }

    /// Relays pending files without end: first the files of an earlier process, later files whose calls ended before the
    /// log had the event.
    pub async fn run(self: Arc<Self>) {
        outbox::sweep(|| self.sweep()).await;
    }

    /// Tries every pending file once.
    async fn sweep(&self) -> Result<Swept> {
        let (mut after, mut swept) = (Uuid::nil(), Swept::default());
        loop {
            let files = self.store.pending(after, BATCH).await?;
            let Some(last) = files.last() else { return Ok(swept) };
            after = last.id;
            let verdicts = self.append(&files).await?;
            swept.found += files.len();
            swept.relayed += verdicts.iter().filter(|verdict| is_done(verdict)).count();
        }
    }

    /// Appends the events of files, records the results in the store, and returns the outcome of each.
    async fn append(&self, files: &[File]) -> Result<Vec<Result<Event>>> {
        let events = files.iter().map(new_event).collect::<Option<Vec<_>>>();
        let events = events.ok_or_else(|| Error::internal("a pending file has an event and a room"))?;
        let append = AppendRequest { events, ..AppendRequest::default() };
        let answer = self.message.clone().append(request(append, DELIVERY)).await?.into_inner();
        let outcomes = files.iter().zip(answer.outcomes);
        let verdicts = join_all(outcomes.map(|(file, outcome)| self.verdict(file, outcome))).await;
        let (mut published, mut refused) = (Vec::new(), Vec::new());
        for (file, verdict) in files.iter().zip(&verdicts).filter(|(file, _)| !file.ready) {
            match verdict {
                Ok(_) => published.push(file.id),
                Err(error) if is_final(error.code) => {
                    tracing::warn!(file = %file.id, %error, "the log rejected a file; removing the file");
                    refused.push(file.id);
                }
                Err(_) => {}
            }
        }
        if !published.is_empty() {
            self.store.mark_ready(published).await?;
        }
        if !refused.is_empty() {
            self.store.abandon(refused).await?;
        }
        Ok(verdicts)
    }

    /// Returns the event that the log has for a file, or the reason why it has none. The log may be behind the room
    /// service: it has not opened a new room, or does not have the event of a new member yet. Then the rejection is not
    /// final.
    async fn verdict(&self, file: &File, outcome: Outcome) -> Result<Event> {
        match verdict(file, outcome) {
            Err(error) if error.code == Code::NotFound && !file.ready && self.may_be_behind(file).await => {
                Err(Error::unavailable("the room's log").because(error))
            }
            verdict => verdict,
        }
    }

    async fn may_be_behind(&self, file: &File) -> bool {
        let Some(room) = file.room else { return false };
        if now_ms().saturating_sub(file.created_at_ms) > LOG_BEHIND_LIMIT_MS {
            return false;
        }
        // Without an answer, the room service may still confirm the right to post.
        self.rights.now(room, Some(file.uploader.id)).await.map_or(true, |access| access.post)
    }
}

/// Returns the event that the log has for a file, or the reason why it has none.
fn verdict(file: &File, outcome: Outcome) -> Result<Event> {
    match outcome.result {
        Some(outcome::Result::Event(event)) if file.event.is_some_and(|id| id.to_string() == event.id) => Ok(event),
        Some(outcome::Result::Event(_)) => {
            Err(Error::new(Code::Conflict, "clientMessageId was used for something else"))
        }
        Some(outcome::Result::Refusal(refusal)) => {
            Err(Error::new(Code::parse(&refusal.code).unwrap_or(Code::Internal), refusal.detail))
        }
        Some(outcome::Result::Unchanged(_)) | None => Err(Error::internal("the log returned no event")),
    }
}

fn is_done(verdict: &Result<Event>) -> bool {
    verdict.as_ref().err().is_none_or(|error| is_final(error.code))
}

/// Returns whether a retry cannot succeed.
fn is_final(code: Code) -> bool {
    !matches!(code, Code::Unavailable | Code::Timeout | Code::RateLimited | Code::Internal)
}

/// Returns the event that announces a file in its room; `None` for a file without a room.
fn new_event(file: &File) -> Option<NewEvent> {
    Some(NewEvent {
        id: file.event?.to_string(),
        room_id: file.room?.to_string(),
        kind: Kind::File.into(),
        sender: Some(convert::user(&file.uploader)),
        client_message_id: file.client_message_id.clone(),
        timeout_ms: TURN_LIMIT.as_millis() as u32,
        files: vec![convert::file(file)],
        traceparent: Span::current().traceparent(),
        ..NewEvent::default()
    })
}
