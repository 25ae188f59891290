//! Reads the history of rooms for clients that join or recover. When many clients arrive at once, as after the end of
//! another gateway, one read serves all requests that arrived before the read began.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::ops::Range;
use std::sync::Arc;

use confab_common::telemetry::trace::{Batch, Span};
use confab_common::{Code, Error, Result, grpc};
use confab_identity::credential::{Credential, message_credential};
use confab_identity::tokens;
use confab_proto::message::v1::{ListEventsRequest, ListEventsResponse};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::event::Entry;
use crate::clients::Clients;
use crate::metrics::METRICS;

/// Most events, and most encoded bytes, in one answer to a client.
pub const MAX_MESSAGES: u32 = 200;
pub const MAX_BYTES: usize = 256 * 1024;
/// Most users, and most bytes of their credentials, in one read.
const MAX_USERS: usize = 1000;
const MAX_CREDENTIALS: usize = 4 * 1024 * 1024;

/// A user who reads, with the credential for the services.
#[derive(Debug, Clone)]
pub struct User {
    pub id: Uuid,
    pub credential: Credential,
}

/// The part of a room's history that a reader requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Only the newest `seq`, without events.
    End,
    /// The messages and room events after the `seq` `after`. With `changed_from`, also the messages from this `seq` to
    /// `after` that were changed after `after`.
    After { after: u64, changed_from: Option<u64> },
    /// This many of the newest events.
    Last(u32),
}

/// A part of a room's history, read after the reader's request. Its reader may read the room at its `last_seq`.
#[derive(Debug, Clone)]
pub struct Page {
    read: Arc<Read>,
    part: Range<usize>,
    more: bool,
}

#[derive(Debug, Default)]
struct Read {
    epoch: String,
    last_seq: u64,
    /// The events after this `seq`, unless the newest ones were requested.
    after: u64,
    events: Vec<Entry>,
    /// Whether there are further events in the direction of reading.
    more: bool,
    /// The lowest `seq` of changed messages.
    changed_from: Option<u64>,
    /// The messages up to `after` that were changed after it, in rising `revision`.
    changed: Vec<Entry>,
    more_changed: bool,
    /// Of a private room: the users of the readers who are members.
    members: Option<HashSet<Uuid>>,
    /// The users of the readers whose credentials are not valid.
    refused: HashSet<Uuid>,
}

impl Page {
    pub fn epoch(&self) -> &str {
        &self.read.epoch
    }

    /// The room's newest `seq`.
    pub fn last_seq(&self) -> u64 {
        self.read.last_seq
    }

    /// The events in rising `seq`.
    pub fn events(&self) -> &[Entry] {
        &self.read.events[self.part.clone()]
    }

    /// Whether there are further events in the direction of reading.
    pub fn more(&self) -> bool {
        self.more
    }

    /// The messages from the `seq` `from` to `after` that were changed after `after`, in rising `revision`; and whether
    /// these are all. The reader must have requested them.
    pub fn changed(&self, after: u64, from: u64) -> (Vec<&Entry>, bool) {
        self.read.changed(after, from)
    }
}

/// Combines the requests of readers into shared reads.
pub struct History {
    clients: Clients,
    // The lock is held for a look-up or a change, never across an await.
    waiting: Mutex<HashMap<Key, Vec<Reader>>>,
}

/// A room, and whether its newest events are requested. Requests for the events after a `seq` have their own queue.
type Key = (Uuid, bool);

/// The users of a read with their credentials.
type Users = BTreeMap<Uuid, Credential>;

struct Reader {
    wanted: Wanted,
    user: Option<User>,
    answer: oneshot::Sender<Result<Page>>,
    /// The trace span of the reader's request.
    span: Span,
    /// Whether a read for other readers could not serve this one.
    is_waiting: bool,
}

impl History {
    pub fn new(clients: Clients) -> Arc<Self> {
        Arc::new(Self { clients, waiting: Mutex::default() })
    }

    /// Returns a page that was read after this call began; other readers may share it. For [`Wanted::After`] the page
    /// may hold only the first of the requested events. Without a user, the reader is anonymous.
    ///
    /// # Errors
    /// `not_found` when the room does not exist or is hidden from the user; otherwise when the message service does not
    /// answer.
    pub async fn read(self: &Arc<Self>, room: Uuid, wanted: Wanted, user: Option<User>) -> Result<Page> {
        let (answer, answered) = oneshot::channel();
        let key = (room, matches!(wanted, Wanted::Last(_)));
        let reader = Reader { wanted, user, answer, span: Span::current(), is_waiting: false };
        match self.waiting.lock().entry(key) {
            // The task that serves the earlier readers serves this reader next.
            hash_map::Entry::Occupied(mut waiting) => waiting.get_mut().push(reader),
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(vec![reader]);
                // The read runs in its own task, because the first reader may be cancelled.
                tokio::spawn(self.clone().serve(key));
            }
        }
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the room's history")))
    }

    /// Serves waiting readers until the queue is empty.
    async fn serve(self: Arc<Self>, key: Key) {
        loop {
            let (readers, users) = {
                let mut waiting = self.waiting.lock();
                let Some(readers) = waiting.get_mut(&key) else { return };
                readers.retain(|reader| !reader.answer.is_closed());
                if readers.is_empty() {
                    waiting.remove(&key);
                    return;
                }
                next_readers(readers)
            };
            let spans = Batch::begin("read history", readers.iter().map(|reader| &reader.span));
            match spans.lead().instrument(self.list(key.0, &readers, &users)).await {
                Ok(read) => {
                    let read = Arc::new(read);
                    let mut others = Vec::new();
                    for reader in readers {
                        if let Err(error) = read.check(reader.user.as_ref().map(|user| user.id)) {
                            let _ = reader.answer.send(Err(error));
                            continue;
                        }
                        match read.part(reader.wanted) {
                            Some((part, more)) => {
                                let _ = reader.answer.send(Ok(Page { read: read.clone(), part, more }));
                            }
                            None => others.push(Reader { is_waiting: true, ..reader }),
                        }
                    }
                    if let Some(waiting) = self.waiting.lock().get_mut(&key) {
                        waiting.append(&mut others);
                    }
                }
                Err(error) => readers.into_iter().for_each(|reader| _ = reader.answer.send(Err(error.clone()))),
            }
        }
    }

    /// Reads the events for as many readers as possible; at least for the first one that waits for its own read.
    async fn list(&self, room: Uuid, readers: &[Reader], users: &Users) -> Result<Read> {
        let waiting = readers.iter().position(|reader| reader.is_waiting);
        let leading = waiting.map_or(readers, |at| &readers[at..=at]);
        let after = leading.iter().filter_map(|reader| reader.wanted.after()).min();
        // Messages above `after` are on the page.
        let changed_from = leading.iter().filter_map(|reader| reader.wanted.changed_from()).min();
        let changed_from = changed_from.filter(|from| after.is_some_and(|after| *from <= after));
        let newest = readers.iter().map(|reader| if let Wanted::Last(count) = reader.wanted { count } else { 0 }).max();
        let limit = if after.is_some() { MAX_MESSAGES } else { newest.unwrap_or_default() };
        let request = ListEventsRequest {
            room_id: room.to_string(),
            before: None,
            after,
            limit,
            max_bytes: MAX_BYTES as u32,
            readers: users.keys().map(Uuid::to_string).collect(),
            moderator: false,
            reader_credentials: users.values().map(|user| user.digest().map_or_else(Vec::new, Vec::from)).collect(),
            credentials: Vec::new(),
            changed_from,
        };
        let mut page = self.call(request.clone()).await?;
        if page.credentials_unknown {
            let credentials = users.values().map(message_credential).collect();
            page = self.call(ListEventsRequest { credentials, ..request }).await?;
            // Such a page has no members: every reader would seem to have the right to read.
            if page.credentials_unknown {
                return Err(Error::unavailable("the room's history"));
            }
        }
        METRICS.history_reads.increment(1);
        self.clients.deleted.hide_in_events(&mut page.events);
        self.clients.deleted.hide_in_events(&mut page.changed);
        Ok(Read { after: after.unwrap_or_default(), changed_from, ..Read::from(page) })
    }

    async fn call(&self, request: ListEventsRequest) -> Result<ListEventsResponse> {
        let page = self.clients.message.clone().list_events(grpc::request(request, self.clients.read)).await;
        Ok(page
            .map_err(|status| match Error::from(status) {
                // The same words for a room that does not exist and for a room that is hidden from all readers.
                error if error.code == Code::NotFound => Error::not_found("room"),
                error => error,
            })?
            .into_inner())
    }
}

/// Removes the readers of the next read, and returns them with their users. Readers beyond [`MAX_USERS`] users wait for
/// a later read. Of several credentials of a user, the read has the last one.
fn next_readers(waiting: &mut Vec<Reader>) -> (Vec<Reader>, Users) {
    let (mut users, mut bytes) = (Users::new(), 0);
    let is_next = |reader: &Reader| {
        let Some(user) = &reader.user else { return true };
        let size = user.credential.size();
        let fits = users.contains_key(&user.id) || users.len() < MAX_USERS;
        let is_next = users.is_empty() || (fits && bytes + size <= MAX_CREDENTIALS);
        if is_next {
            bytes += size;
            users.insert(user.id, user.credential.clone());
        }
        is_next
    };
    let (next, later) = std::mem::take(waiting).into_iter().partition(is_next);
    *waiting = later;
    (next, users)
}

impl Wanted {
    /// The `seq` to read after, capped at the database's largest integer.
    fn after(self) -> Option<u64> {
        match self {
            Self::After { after, .. } => Some(after.min(i64::MAX as u64)),
            Self::End | Self::Last(_) => None,
        }
    }

    /// The lowest `seq` of the changed messages, if they are requested.
    fn changed_from(self) -> Option<u64> {
        match self {
            Self::After { changed_from, .. } => changed_from,
            Self::End | Self::Last(_) => None,
        }
    }
}

impl Read {
    /// Checks whether a user may read the room at the page's `last_seq`.
    fn check(&self, user: Option<Uuid>) -> Result<()> {
        if user.is_some_and(|user| self.refused.contains(&user)) {
            return Err(tokens::refused());
        }
        let is_member = |members: &HashSet<Uuid>| user.is_some_and(|user| members.contains(&user));
        if self.members.as_ref().is_none_or(is_member) { Ok(()) } else { Err(Error::not_found("room")) }
    }

    /// The requested range of this page, and whether there are further events. `None` when the page ends so early that
    /// a separate read would return many more events, or when only a separate read can return all changed messages.
    fn part(&self, wanted: Wanted) -> Option<(Range<usize>, bool)> {
        let all = self.events.len();
        match wanted {
            Wanted::End => Some((all..all, false)),
            Wanted::Last(count) => Some((all.saturating_sub(count as usize)..all, self.more)),
            Wanted::After { after, changed_from } => {
                let begin = self.begin(after);
                let more = self.more && after < self.last_seq;
                let own = after == self.after && changed_from == self.changed_from;
                let changed = own || changed_from.is_none_or(|from| self.changed(after, from).1);
                (changed && after >= self.after && (!more || begin <= all / 2)).then_some((begin..all, more))
            }
        }
    }

    /// The index of the first event after this `seq`.
    fn begin(&self, after: u64) -> usize {
        self.events.partition_point(|event| event.seq <= after)
    }

    /// The messages from the `seq` `from` to `after` that were changed after `after`, in rising `revision`; and whether
    /// these are all. Some of them may be events of this page, which begins at a lower `seq`.
    fn changed(&self, after: u64, from: u64) -> (Vec<&Entry>, bool) {
        if after >= self.last_seq {
            return (Vec::new(), true);
        }
        // Messages that were changed later may be missing.
        let known = match self.changed.last() {
            _ if !self.more_changed => u64::MAX,
            Some(last) => last.revision,
            None => self.after,
        };
        let is_wanted = |entry: &&Entry| entry.seq >= from && (after + 1..=known).contains(&entry.revision);
        let events = self.events[..self.begin(after)].iter();
        let mut changed = self.changed.iter().chain(events).filter(is_wanted).collect::<Vec<_>>();
        changed.sort_unstable_by_key(|entry| entry.revision);
        let lowest = self.changed_from.unwrap_or(self.after + 1);
        (changed, !self.more_changed && from >= lowest)
    }
}

impl From<ListEventsResponse> for Read {
    fn from(page: ListEventsResponse) -> Self {
        let ids = |ids: &[String]| ids.iter().filter_map(|id| id.parse().ok()).collect();
        Self {
            members: page.private.then(|| ids(&page.readers)),
            refused: ids(&page.refused_readers),
            events: page.events.iter().filter_map(Entry::new).collect(),
            more: page.more,
            changed: page.changed.iter().filter_map(Entry::new).collect(),
            more_changed: page.more_changed,
            epoch: page.epoch,
            last_seq: page.last_seq,
            after: 0,
            changed_from: None,
        }
    }
}

#[cfg(test)]
mod tests;
