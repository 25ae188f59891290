//! The rules: what may be appended by whom, and how much is read at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confab_common::{Code, Error, Result, text};
use confab_proto::partition;
use futures::future::join_all;
use moka::future::Cache;
use tokio::time::Instant;
use uuid::Uuid;

use crate::lanes::{Lanes, Pending};
use crate::rights::{Right, Rights};
use crate::store::{Body, Draft, Event, Heads, Kind, Limit, Outcome, Page, Store, Window, client_id};

/// Most events in one call.
const MAX_EVENTS: usize = 1024;
/// Most bytes of what somebody writes.
const MAX_CONTENT: usize = 16_384;
/// Most bytes of a client's own id.
const MAX_CLIENT_MESSAGE_ID: usize = 128;
/// Most bytes of a system event's data.
const MAX_DATA: usize = 64 * 1024;
/// Most bytes of names that other services give: a sender's, an event's.
const MAX_NAME: usize = 256;
/// How long a caller waits who does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Longest that a caller is believed to wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Most events in a page of history.
const MAX_PAGE: u32 = 200;
/// Most bytes in any page, well below what a message can hold.
const MAX_PAGE_BYTES: u32 = 4 * 1024 * 1024;
/// A page of the log unless the caller says otherwise.
const LOG_PAGE: Limit = Limit { events: 1000, bytes: 256 * 1024 };
/// Most rooms whose heads are asked for at once.
const MAX_ROOMS: usize = 1000;
/// How old heads may be that are handed out.
const HEADS_AGE: Duration = Duration::from_millis(250);

/// An event as somebody sends it, unchecked.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct NewEvent {
    pub id: String,
    pub room_id: String,
    pub kind: Option<Kind>,
    /// Id and name.
    pub sender: Option<(String, String)>,
    pub client_message_id: Option<String>,
    pub content: String,
    pub event: String,
    pub data: String,
    pub closes_room: bool,
    /// How long the caller waits; zero for the usual time.
    pub timeout: Duration,
}

/// What became of a [`NewEvent`]: the event in the log, and whether an earlier send put it there.
pub type Sent = Result<(Event, bool)>;

/// The message service.
pub struct Service {
    store: Arc<dyn Store>,
    partitions: u32,
    lanes: Lanes,
    rights: Rights,
    heads: Cache<(), Heads<u32>>,
    // A std lock: held for a comparison, never across an await.
    epoch: Mutex<Uuid>,
}

impl Service {
    /// The service over an opened log of so many partitions.
    pub fn new(store: Arc<dyn Store>, partitions: u32, epoch: Uuid, lanes: Lanes, rights: Rights) -> Self {
        let heads = Cache::builder().max_capacity(1).time_to_live(HEADS_AGE).build();
        Self { store, partitions, lanes, rights, heads, epoch: Mutex::new(epoch) }
    }

    /// Finishes what is queued and takes nothing more.
    pub async fn finish(&self) {
        self.lanes.finish().await;
    }

    /// How many partitions the log has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Appends events; each has an outcome of its own, in their order, and there is one epoch: the newest seen.
    ///
    /// # Errors
    /// `too_large` when there are too many.
    pub async fn append(&self, events: Vec<NewEvent>) -> Result<(Uuid, Vec<Sent>)> {
        if events.len() > MAX_EVENTS {
            return Err(Error::new(Code::TooLarge, format!("at most {MAX_EVENTS} events at once")));
        }
        let arrived = Instant::now();
        let checked: Vec<_> = events.into_iter().map(|event| check(event, self.partitions, arrived)).collect();
        let rights = self.rights_of(&checked).await;
        let mut sent = Vec::with_capacity(checked.len());
        let mut admitted = Vec::with_capacity(checked.len());
        for pending in checked {
            let admission = pending.and_then(|pending| {
                permit(&pending.draft, &rights)?;
                admitted.push(pending.clone());
                Ok(pending.draft.id)
            });
            sent.push(admission);
        }
        let mut answers = self.lanes.append(admitted).await.into_iter();
        let mut epoch = self.epoch();
        let sent = sent
            .into_iter()
            .map(|admission| {
                let id = admission?;
                let (seen, outcome) = answers.next().unwrap_or_else(|| Err(Error::timeout()))?;
                epoch = epoch.max(seen);
                match outcome {
                    Outcome::Appended(event) => Ok((event, false)),
                    // The same id is the same send, resent on its way: not the caller's repetition.
                    Outcome::Repeated(event) => Ok((event.clone(), event.draft.id != id)),
                    Outcome::Closed => Err(Error::not_found("room")),
                }
            })
            .collect();
        self.saw(epoch);
        Ok((epoch, sent))
    }

    /// The rights that a request needs, each asked for once, all at the same time.
    async fn rights_of(&self, checked: &[Result<Pending>]) -> HashMap<(Uuid, Uuid), Result<Right>> {
        let needed = checked.iter().flatten().map(|pending| &pending.draft).filter(|draft| draft.kind != Kind::System);
        let mut keys: Vec<_> = needed.map(|draft| (draft.room, draft.sender)).collect();
        keys.sort_unstable();
        keys.dedup();
        join_all(keys.into_iter().map(async |key| (key, self.rights.of(key.0, key.1).await))).await.into_iter().collect()
    }

    /// A page of a room's history and whether there is more in that direction. Who may read it is the caller's concern.
    ///
    /// # Errors
    /// `invalid_request` for a limit over 200; when the database fails.
    pub async fn list(&self, room: &str, window: Window, limit: u32, max_bytes: u32) -> Result<(Page, bool)> {
        let room = text::id("roomId", room)?;
        if limit > MAX_PAGE {
            return Err(Error::field("limit", format!("must be at most {MAX_PAGE}")));
        }
        let limit = Limit { events: limit, bytes: at_most(max_bytes, MAX_PAGE_BYTES, MAX_PAGE_BYTES) };
        let page = self.store.list((self.partition(room), room), window, limit).await?;
        // A room's numbers are dense, so its ends say whether there is more.
        let more = match window {
            Window::After(seq) => page.events.last().map_or(seq, |event| event.seq) < page.head,
            Window::Before(seq) => page.events.first().map_or(seq.min(page.head + 1), |event| event.seq) > 1,
            Window::Latest => page.events.first().map_or(page.head + 1, |event| event.seq) > 1,
        };
        self.saw(page.epoch);
        Ok((page, more))
    }

    /// Events of a partition above a position.
    ///
    /// # Errors
    /// `invalid_request` for a partition that the log does not have; when the database fails.
    pub async fn read_log(&self, partition: u32, after: u64, limit: u32, max_bytes: u32) -> Result<Page> {
        self.check_partition(partition)?;
        let limit =
            Limit { events: at_most(limit, LOG_PAGE.events, LOG_PAGE.events), bytes: at_most(max_bytes, LOG_PAGE.bytes, MAX_PAGE_BYTES) };
        let page = self.store.read_log(partition, after, limit).await?;
        self.saw(page.epoch);
        Ok(page)
    }

    /// The heads of these partitions, or of all. Callers that ask within a quarter of a second share one query.
    ///
    /// # Errors
    /// `invalid_request` for a partition that the log does not have; when the database fails.
    pub async fn heads(&self, partitions: &[u32]) -> Result<Heads<u32>> {
        partitions.iter().try_for_each(|partition| self.check_partition(*partition))?;
        let mut heads = self.heads.try_get_with((), self.store.heads()).await.map_err(|error| Error::clone(&error))?;
        self.saw(heads.epoch);
        if !partitions.is_empty() {
            heads.heads.retain(|(partition, _)| partitions.contains(partition));
        }
        Ok(heads)
    }

    /// The heads of rooms.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or too many; when the database fails.
    pub async fn room_heads(&self, rooms: &[String]) -> Result<Heads<Uuid>> {
        if rooms.len() > MAX_ROOMS {
            return Err(Error::field("roomIds", format!("must be at most {MAX_ROOMS}")));
        }
        let ids = rooms.iter().map(|room| text::id("roomIds", room)).collect::<Result<Vec<_>>>()?;
        self.store.room_heads(ids.into_iter().map(|room| (self.partition(room), room)).collect()).await
    }

    fn partition(&self, room: Uuid) -> u32 {
        partition::of_room(room, self.partitions)
    }

    fn check_partition(&self, partition: u32) -> Result<()> {
        match partition < self.partitions {
            true => Ok(()),
            false => Err(Error::field("partition", format!("must be below {}", self.partitions))),
        }
    }

    fn epoch(&self) -> Uuid {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, epoch: Uuid) {
        let mut newest = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = epoch.max(*newest);
    }
}

/// What the caller asked for, or the usual where it did not, but never more than `max`.
fn at_most(asked: u32, usual: u32, max: u32) -> u32 {
    if asked == 0 { usual } else { asked.min(max) }
}

/// A draft of an event that somebody sends.
fn check(new: NewEvent, partitions: u32, arrived: Instant) -> Result<Pending> {
    let id = text::id("id", &new.id)?;
    let room = text::id("roomId", &new.room_id)?;
    let kind = new.kind.ok_or_else(|| Error::field("kind", "must be one that is known"))?;
    let (sender, sender_username) = new.sender.ok_or_else(|| Error::field("sender", "must be given"))?;
    let sender = text::id("sender", &sender)?;
    within("sender", &sender_username, 1, MAX_NAME)?;
    if let Some(chosen) = &new.client_message_id {
        within("clientMessageId", chosen, 1, MAX_CLIENT_MESSAGE_ID)?;
    }
    if new.content.len() > MAX_CONTENT {
        return Err(Error::new(Code::TooLarge, format!("content must be at most {MAX_CONTENT} bytes")));
    }
    within("content", &new.content, usize::from(kind == Kind::Message), MAX_CONTENT)?;
    within("event", &new.event, usize::from(kind == Kind::System), MAX_NAME)?;
    within("data", &new.data, 0, MAX_DATA)?;
    let timeout = if new.timeout.is_zero() { DEFAULT_TIMEOUT } else { new.timeout.min(MAX_TIMEOUT) };
    let draft = Draft {
        partition: partition::of_room(room, partitions),
        room,
        id,
        kind,
        sender,
        client_id: client_id(new.client_message_id.as_deref(), id),
        body: Body { sender_username, content: new.content, event: new.event, data: new.data },
        closes_room: new.closes_room && kind == Kind::System,
    };
    Ok(Pending { draft: Arc::new(draft), deadline: arrived + timeout })
}

/// A text of `min` to `max` bytes without NUL characters.
fn within(field: &str, value: &str, min: usize, max: usize) -> Result<()> {
    text::no_nul(field, value)?;
    match value.len() {
        0 if min > 0 => Err(Error::field(field, "must not be empty")),
        len if len > max => Err(Error::field(field, format!("must be at most {max} bytes"))),
        _ => Ok(()),
    }
}

/// Whether the sender may post. Room events come from the services themselves, which have checked.
fn permit(draft: &Draft, rights: &HashMap<(Uuid, Uuid), Result<Right>>) -> Result<()> {
    if draft.kind == Kind::System {
        return Ok(());
    }
    match rights.get(&(draft.room, draft.sender)) {
        Some(Ok(Right::Post)) => Ok(()),
        Some(Ok(Right::Look)) => Err(Error::new(Code::Forbidden, "may not post in this room")),
        Some(Ok(Right::Nothing)) => Err(Error::not_found("room")),
        Some(Err(error)) => Err(error.clone()),
        None => Err(Error::internal("a right that was not asked for")),
    }
}

#[cfg(test)]
mod tests;
