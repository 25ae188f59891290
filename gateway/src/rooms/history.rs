//! Reads the history of rooms for clients that join or recover. When many clients arrive at once, as after the end of
//! another gateway, one read serves all requests that arrived before the read began.

mod read;

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;

use confab_common::telemetry::trace::{Batch, Span};
use confab_common::{Code, Error, Result, grpc};
use confab_identity::credential::{Credential, message_credential};
use confab_proto::message::v1::{ListEventsRequest, ListEventsResponse};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::backoff::{is_worth_it, pauses};
use crate::clients::Clients;
use crate::metrics::METRICS;
use read::Read;

pub use read::{Page, Wanted};

/// Most events, and most encoded bytes, in one answer to a client.
pub const MAX_MESSAGES: u32 = 200;
pub const MAX_BYTES: usize = 256 * 1024;
/// Most users, and most bytes of their credentials, in one read.
const MAX_USERS: usize = 1000;
const MAX_CREDENTIALS: usize = 4 * 1024 * 1024;
/// Most calls for one read: with the digests, with the credentials, and without users whose credentials are at fault.
const ATTEMPTS: usize = 4;

/// A user who reads, with the credential for the services.
#[derive(Debug, Clone)]
pub struct User {
    pub id: Uuid,
    pub credential: Credential,
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

/// Why a reader receives no page.
#[derive(Debug, Clone)]
enum Failure {
    Error(Error),
    /// The message service cannot verify the reader's credential now; nothing was read.
    Unverified,
}

struct Reader {
    wanted: Wanted,
    user: Option<User>,
    answer: oneshot::Sender<Result<Page, Failure>>,
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
    /// may hold only the first of the requested events. Without a user, the reader is anonymous. While the message
    /// service cannot verify the reader's credential, this reader alone reads again, until the deadline of a read.
    ///
    /// # Errors
    /// `not_found` when the room does not exist or is hidden from the user; otherwise when the message service does not
    /// answer.
    pub async fn read(self: &Arc<Self>, room: Uuid, wanted: Wanted, user: Option<User>) -> Result<Page> {
        let deadline = Instant::now() + self.clients.read.deadline;
        let mut backoff = pauses();
        loop {
            match self.read_once(room, wanted, user.clone()).await {
                Ok(page) => return Ok(page),
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Unverified) => {
                    let pause = backoff.pause();
                    if !is_worth_it(Instant::now() + pause, deadline) {
                        return Err(unavailable());
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    async fn read_once(self: &Arc<Self>, room: Uuid, wanted: Wanted, user: Option<User>) -> Result<Page, Failure> {
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
        answered.await.unwrap_or_else(|_| Err(Failure::Error(unavailable())))
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
            let mut refused = HashMap::new();
            let listed = spans.lead().instrument(self.list(key.0, &readers, users, &mut refused)).await.map(Arc::new);
            let mut others = Vec::new();
            for reader in readers {
                let user = reader.user.as_ref().map(|user| user.id);
                let page = match user.and_then(|user| refused.get(&user)) {
                    Some(failure) => Err(failure.clone()),
                    None => listed.as_ref().map_err(|error| Failure::Error(error.clone())),
                };
                let checked = page.and_then(|read| match read.check(user) {
                    Ok(()) => Ok((read, read.part(reader.wanted))),
                    Err(error) => Err(Failure::Error(error)),
                });
                match checked {
                    Ok((read, Some((part, more)))) => {
                        let _ = reader.answer.send(Ok(Page { read: read.clone(), part, more }));
                    }
                    Ok((_, None)) => others.push(Reader { is_waiting: true, ..reader }),
                    Err(failure) => _ = reader.answer.send(Err(failure)),
                }
            }
            if let Some(waiting) = self.waiting.lock().get_mut(&key) {
                waiting.append(&mut others);
            }
        }
    }

    /// Reads the events for as many readers as possible; if some wait since an earlier read, at least for one of them. The
    /// failures of users whose credentials are at fault are added to `refused`: they must not fail the read of the other
    /// readers.
    async fn list(
        &self,
        room: Uuid,
        readers: &[Reader],
        mut users: Users,
        refused: &mut HashMap<Uuid, Failure>,
    ) -> Result<Read> {
        let waiting = readers.iter().filter(|reader| reader.is_waiting);
        let lowest = waiting.min_by_key(|reader| (reader.wanted.after(), reader.wanted.changed_from()));
        let leading = lowest.map_or(readers, std::slice::from_ref);
        let after = leading.iter().filter_map(|reader| reader.wanted.after()).min();
        // Messages above `after` are on the page.
        let changed_from = leading.iter().filter_map(|reader| reader.wanted.changed_from()).min();
        let changed_from = changed_from.filter(|from| after.is_some_and(|after| *from <= after));
        let newest = readers.iter().map(|reader| if let Wanted::Last(count) = reader.wanted { count } else { 0 }).max();
        let limit = if after.is_some() { MAX_MESSAGES } else { newest.unwrap_or_default() };
        let request = |users: &Users, is_first| ListEventsRequest {
            room_id: room.to_string(),
            before: None,
            after,
            limit,
            max_bytes: MAX_BYTES as u32,
            readers: users.keys().map(Uuid::to_string).collect(),
            moderator: false,
            reader_credentials: users.values().map(|user| user.digest().map_or_else(Vec::new, Vec::from)).collect(),
            // The service seldom needs more than the digests.
            credentials: if is_first { Vec::new() } else { users.values().map(message_credential).collect() },
            changed_from,
        };
        let has_anonymous = readers.iter().any(|reader| reader.user.is_none());
        for attempt in 0..ATTEMPTS {
            if users.is_empty() && !has_anonymous {
                break;
            }
            let mut page = match self.call(request(&users, attempt == 0)).await {
                Ok(page) => page,
                // No user has a valid credential; anonymous readers need none.
                Err(error) if is_of_credentials(&error) && has_anonymous && !users.is_empty() => {
                    let all = std::mem::take(&mut users).into_keys();
                    refused.extend(all.map(|user| (user, Failure::Error(error.clone()))));
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Such a page has no members: every reader would seem to have the right to read.
            if page.credentials_unknown {
                let unverified = page.refused_readers.iter().filter_map(|user| user.parse::<Uuid>().ok());
                let unverified = unverified.filter(|user| users.remove(user).is_some()).collect::<Vec<_>>();
                if attempt > 0 && unverified.is_empty() {
                    break;
                }
                refused.extend(unverified.into_iter().map(|user| (user, Failure::Unverified)));
                continue;
            }
            METRICS.history_reads.increment(1);
            self.clients.deleted.hide_in_events(&mut page.events);
            self.clients.deleted.hide_in_events(&mut page.changed);
            return Ok(Read::new(after.unwrap_or_default(), changed_from, &page));
        }
        Err(unavailable())
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

fn is_of_credentials(error: &Error) -> bool {
    matches!(error.code, Code::Unauthorized | Code::Forbidden)
}

fn unavailable() -> Error {
    Error::unavailable("the room's history")
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

#[cfg(test)]
mod tests;
