//! The rules of the log: which events a user may append, and how much one call may read.

mod attach;
mod changes;
mod markers;
mod reactions;
mod rooms;
mod search;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use confab_common::{Code, Error, Result, text};
use confab_proto::partition;
use futures::future::join_all;
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::check::{Checked, NewEvent, check};
use crate::files::Files;
use crate::lanes::Lanes;
use crate::rights::{Right, Rights};
use crate::store::{
    Event, EventData, FORMAT_WITH_MEMBERS, Head, Heads, Kind, LastTimes, Limit, Opened, Outcome, Page, RoomHead, Store,
};

/// Maximum events in one append call.
const MAX_EVENTS: usize = 1024;
/// Maximum bytes in any page (4 MiB).
const MAX_PAGE_BYTES: u32 = 4 * 1024 * 1024;
/// The default page size of the log.
const LOG_PAGE: Limit = Limit { events: 1000, bytes: 256 * 1024 };
/// Maximum rooms whose heads one call may read.
const MAX_ROOMS: usize = 1000;
/// Maximum files that one call may mark as deleted.
const MAX_FORGOTTEN: usize = 1000;
/// Maximum age of cached heads.
const HEADS_AGE: Duration = Duration::from_millis(250);

/// The outcome of a [`NewEvent`]: an event, and what it is.
pub type Sent = Result<(Event, Found)>;

/// What the event of an outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The event in the log.
    Appended,
    /// The event in the log, which an earlier send appended.
    Duplicate,
    /// The message of a change that would have changed nothing.
    Unchanged,
    /// The event of a reaction, or its message if it changed nothing.
    Reacted,
}

pub use changes::Reading;
pub use markers::{Asked, MAX_MARKS};
pub use rooms::{Ask, History, MAX_READERS};
#[cfg(test)]
pub use search::Finder;
pub use search::{Found as FoundMessages, Search, Searches};

pub struct Service {
    store: Arc<dyn Store>,
    partitions: u32,
    lanes: Lanes,
    rights: Rights,
    files: Files,
    searches: Searches,
    heads: Cache<(), Heads<Head>>,
    // Locked for a comparison, never across an await.
    epoch: Mutex<Uuid>,
    format: AtomicU32,
}

impl Service {
    /// Creates the service over an open log of `partitions` partitions.
    pub fn new(
        store: Arc<dyn Store>,
        partitions: u32,
        opened: Opened,
        lanes: Lanes,
        rights: Rights,
        files: Files,
        searches: Searches,
    ) -> Self {
        let heads = Cache::builder().max_capacity(1).time_to_live(HEADS_AGE).build();
        let Opened { epoch, format } = opened;
        Self {
            store,
            partitions,
            lanes,
            rights,
            files,
            searches,
            heads,
            epoch: Mutex::new(epoch),
            format: format.into(),
        }
    }

    /// Appends the queued events and rejects new ones.
    pub async fn finish(&self) {
        self.lanes.finish().await;
    }

    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Appends events. Each has its own outcome, in the order of `events`; all share the newest epoch seen. An event
    /// that could not be decoded is given as its error.
    ///
    /// # Errors
    /// `too_large` for more than 1024 events.
    pub async fn append(&self, events: Vec<Result<NewEvent>>) -> Result<(Uuid, Vec<Sent>)> {
        self.check_format()?;
        check_count(events.len())?;
        let arrived = Instant::now();
        let checked: Vec<_> = events.into_iter().map(|event| check(event?, self.partitions, arrived)).collect();
        // From this format on, the log itself has the rights.
        let rights = if self.format() < FORMAT_WITH_MEMBERS { Some(self.rights_of(&checked).await) } else { None };
        let mut sent = Vec::with_capacity(checked.len());
        let mut permitted = Vec::with_capacity(checked.len());
        for checked in checked {
            let admission = checked.and_then(|checked| {
                if self.format() < checked.pending.data.first_format() {
                    return Err(changes::former_format());
                }
                if let Some(rights) = &rights {
                    permit(&checked.pending.data, rights)?;
                }
                let id = checked.pending.data.id;
                permitted.push(checked);
                Ok(id)
            });
            sent.push(admission);
        }
        let answers = if permitted.iter().all(|checked| checked.file_ids.is_empty()) {
            self.lanes.append(permitted.into_iter().map(|checked| checked.pending).collect()).await
        } else {
            self.append_with_files(permitted).await
        };
        let mut answers = answers.into_iter();
        let mut epoch = self.epoch();
        let sent = sent
            .into_iter()
            .map(|admission| {
                let id = admission?;
                let (seen, outcome) = answers.next().unwrap_or_else(|| Err(Error::timeout()))?;
                epoch = epoch.max(seen);
                match outcome {
                    // The same id is the same send, repeated by a gateway and not by its client.
                    Outcome::Repeated(event) if event.data.id != id => Ok((event, Found::Duplicate)),
                    Outcome::Appended(event) | Outcome::Repeated(event) => Ok((event, Found::Appended)),
                    Outcome::Unchanged(message) => Ok((message, Found::Unchanged)),
                    Outcome::Reacted(event, own) => Ok((Event { own, ..event }, Found::Reacted)),
                    Outcome::Hidden => Err(Error::not_found("room")),
                    Outcome::Refused(refusal) => Err(refusal.into()),
                }
            })
            .collect();
        self.saw(epoch);
        Ok((epoch, sent))
    }

    /// Fetches the permissions that a request needs, each once, concurrently.
    async fn rights_of(&self, checked: &[Result<Checked>]) -> HashMap<(Uuid, Uuid), Result<Right>> {
        let needed =
            checked.iter().flatten().map(|checked| &checked.pending.data).filter(|data| data.kind != Kind::System);
        let mut keys: Vec<_> = needed.map(|data| (data.room, data.sender)).collect();
        keys.sort_unstable();
        keys.dedup();
        join_all(keys.into_iter().map(async |key| (key, self.rights.of(key.0, key.1).await)))
            .await
            .into_iter()
            .collect()
    }

    /// Returns the events of a partition above a position.
    ///
    /// # Errors
    /// `invalid_request` for a partition that the log does not have; when the database fails.
    pub async fn read_log(&self, partition: u32, after: u64, limit: u32, max_bytes: u32) -> Result<Page> {
        self.check_format()?;
        self.check_partition(partition)?;
        let limit = Limit {
            events: at_most(limit, LOG_PAGE.events, LOG_PAGE.events),
            bytes: at_most(max_bytes, LOG_PAGE.bytes, MAX_PAGE_BYTES),
        };
        let page = self.store.read_log(partition, after, limit).await?;
        self.saw(page.epoch);
        Ok(page)
    }

    /// Returns the heads of these partitions; of all partitions if the list is empty. Callers within 250 ms share one
    /// query.
    ///
    /// # Errors
    /// `invalid_request` for a partition that the log does not have; when the database fails.
    pub async fn heads(&self, partitions: &[u32]) -> Result<Heads<Head>> {
        partitions.iter().try_for_each(|partition| self.check_partition(*partition))?;
        let mut heads = self.heads.try_get_with((), self.store.heads()).await.map_err(|error| Error::clone(&error))?;
        self.saw(heads.epoch);
        if !partitions.is_empty() {
            heads.heads.retain(|(partition, _)| partitions.contains(partition));
        }
        Ok(heads)
    }

    /// Returns the heads of rooms, with `until_ms` also the times of each room's newest events.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or more than 1000 rooms; when the database fails.
    pub async fn room_heads(
        &self,
        rooms: &[String],
        until_ms: Option<i64>,
    ) -> Result<(Heads<RoomHead>, Vec<LastTimes>)> {
        if rooms.len() > MAX_ROOMS {
            return Err(Error::field("roomIds", format!("must be at most {MAX_ROOMS}")));
        }
        let ids = rooms.iter().map(|room| text::id("roomIds", room)).collect::<Result<Vec<_>>>()?;
        let heads = self.store.room_heads(ids.into_iter().map(|room| (self.partition(room), room)).collect()).await?;
        let Some(until_ms) = until_ms else { return Ok((heads, Vec::new())) };
        // Events never change, so the heads and the times need no common snapshot.
        let seqs = heads.heads.iter().map(|head| ((self.partition(head.room), head.room), head.seq)).collect();
        let times = self.store.last_times(seqs, until_ms).await?;
        Ok((heads, times))
    }

    /// Marks these files of a room as deleted.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or more than 1000 files; when the database fails.
    pub async fn forget_files(&self, room: &str, files: &[String]) -> Result<()> {
        let room = text::id("roomId", room)?;
        if files.len() > MAX_FORGOTTEN {
            return Err(Error::field("ids", format!("must be at most {MAX_FORGOTTEN}")));
        }
        let ids = files.iter().map(|file| text::id("ids", file)).collect::<Result<Vec<_>>>()?;
        self.store.forget_files((self.partition(room), room), ids).await
    }

    fn partition(&self, room: Uuid) -> u32 {
        partition::of_room(room, self.partitions)
    }

    fn check_partition(&self, partition: u32) -> Result<()> {
        if partition < self.partitions {
            Ok(())
        } else {
            Err(Error::field("partition", format!("must be below {}", self.partitions)))
        }
    }

    fn epoch(&self) -> Uuid {
        *self.epoch.lock()
    }

    fn saw(&self, epoch: Uuid) {
        let mut newest = self.epoch.lock();
        *newest = epoch.max(*newest);
    }
}

/// Checks the number of events in one append.
///
/// # Errors
/// `too_large` for more than 1024 events.
pub fn check_count(events: usize) -> Result<()> {
    if events > MAX_EVENTS {
        return Err(Error::new(Code::TooLarge, format!("at most {MAX_EVENTS} events at once")));
    }
    Ok(())
}

/// Returns the requested limit, or the default for 0, but never more than `max`.
fn at_most(asked: u32, usual: u32, max: u32) -> u32 {
    if asked == 0 { usual } else { asked.min(max) }
}

/// Checks an event of a log of the former format: the sender must be allowed to post, and there are no members. Room
/// events come from services, which have already checked.
fn permit(data: &EventData, rights: &HashMap<(Uuid, Uuid), Result<Right>>) -> Result<()> {
    if data.body.access.is_some() {
        return Err(rooms::former_format());
    }
    if data.kind == Kind::System {
        return Ok(());
    }
    match rights.get(&(data.room, data.sender)) {
        Some(Ok(Right::Post)) => Ok(()),
        Some(Ok(Right::Look)) => Err(Error::new(Code::Forbidden, "may not post in this room")),
        Some(Ok(Right::Nothing)) => Err(Error::not_found("room")),
        Some(Err(error)) => Err(error.clone()),
        None => Err(Error::internal("a permission was not fetched")),
    }
}

#[cfg(test)]
mod tests;
