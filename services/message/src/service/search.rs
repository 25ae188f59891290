//! The search of messages.

use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result, cursor, text};
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::Service;
use crate::metrics::METRICS;
use crate::store::search::{Candidate, Place, ReadMessages, Wanted};
use crate::store::{Event, Limit, Readers, Store, Window};
use crate::words::{MAX_WORDS, Query};

/// Maximum characters of a search.
const MAX_QUERY: usize = 200;
/// Maximum messages on a page.
const MAX_PAGE: u32 = 200;
/// Maximum bytes of the messages on a page (2 MiB).
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Maximum rooms of a user that a search covers: the maximum that a user is in.
const MAX_ROOMS: u32 = 1000;
/// The least number of candidates in one look-up, because the check of their texts may leave few.
const MIN_CANDIDATES: u32 = 20;
/// Most look-ups for one page. A page that is not full then ends with a cursor.
const ROUNDS: usize = 5;
/// Most time for one search.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);
/// How long a search waits until another one has ended.
const WAIT_LIMIT: Duration = Duration::from_millis(500);
/// Searches that wait, for each one in progress.
const WAITING: usize = 8;

/// Bounds the searches in progress, so that they leave the connections of the database to other calls.
pub struct Searches {
    /// `None`: the search is off.
    running: Option<Arc<Semaphore>>,
    admitted: Arc<Semaphore>,
}

impl Searches {
    /// Permits this number of searches at the same time; 0 turns the search off.
    pub fn new(most: usize) -> Self {
        let running = (most > 0).then(|| Arc::new(Semaphore::new(most)));
        Self { running, admitted: Arc::new(Semaphore::new(most * (1 + WAITING))) }
    }

    /// Runs a search, which goes on to its end when its caller is dropped: until then it counts as in progress.
    async fn run<T: Send + 'static>(&self, work: BoxFuture<'static, Result<T>>) -> Result<T> {
        let Some(running) = self.running.clone() else {
            return Err(Error::new(Code::Forbidden, "the search of messages is off on this server"));
        };
        let busy = || {
            LIMITS.hit("searches");
            Error::new(Code::Unavailable, "too many searches in progress; try again")
        };
        let _admitted = self.admitted.clone().try_acquire_owned().map_err(|_| busy())?;
        let permit = timeout(WAIT_LIMIT, running.acquire_owned()).await.map_err(|_| busy())?;
        let permit = permit.map_err(Error::internal)?;
        let begun = Instant::now();
        let work = tokio::spawn(async move {
            let _permit = permit;
            let outcome = work.await;
            METRICS.search.record(begun.elapsed());
            outcome
        });
        match timeout_at(begun + SEARCH_LIMIT, work).await {
            Ok(outcome) => outcome.map_err(Error::internal)?,
            Err(_) => {
                LIMITS.hit("search_time");
                Err(Error::new(Code::Unavailable, "the search takes too long; search for less common words"))
            }
        }
    }
}

/// What to search for, and who searches.
#[derive(Debug)]
pub struct Search<'a> {
    /// Empty only for a moderator.
    pub reader: &'a str,
    /// Whether a server key searches, which may read every room.
    pub moderator: bool,
    /// Empty: the rooms of which the reader is a member.
    pub room: &'a str,
    pub query: &'a str,
    /// Empty: any sender.
    pub sender: &'a str,
    /// Only messages that were appended earlier, in milliseconds since the Unix epoch.
    pub before_ms: Option<i64>,
    pub limit: u32,
    /// Empty for the first page.
    pub cursor: &'a str,
}

/// Where a text has the words of a search, in Unicode scalar values.
pub type Highlights = Vec<(u32, u32)>;

/// The messages that a search has found, the newest first.
#[derive(Debug, Default)]
pub struct Found {
    pub epoch: Uuid,
    pub items: Vec<(Event, Highlights)>,
    /// Empty on the last page.
    pub next_cursor: String,
    /// All messages from before this time can be found, in milliseconds since the Unix epoch.
    pub up_to_ms: i64,
}

/// A search whose request was checked.
pub struct Finder {
    pub store: Arc<dyn Store>,
    pub query: Query,
    pub readers: Readers,
    pub room: Option<Uuid>,
    pub sender: Option<Uuid>,
    pub below: Place,
    pub limit: usize,
}

impl Service {
    /// Returns the newest messages with all words of a search.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or cursor, a query of 0 or more than 200 characters or of more than 10
    /// words, a limit of 0 or above 200, and without a room for a moderator; `not_found` for a room that is not open or
    /// hidden from the reader; `forbidden` if the search is off; `unavailable` for too many searches at the same time,
    /// and for one that takes longer than 2 s; when the database fails.
    pub async fn search(&self, search: Search<'_>) -> Result<Found> {
        self.check_format()?;
        if !(1..=MAX_PAGE).contains(&search.limit) {
            return Err(Error::field("limit", format!("must be a number from 1 to {MAX_PAGE}")));
        }
        let text = text::bounded("q", search.query, MAX_QUERY)?;
        if text.is_empty() {
            return Err(Error::field("q", "must not be empty"));
        }
        let query = Query::of(&text);
        if query.len() > MAX_WORDS {
            return Err(Error::field("q", format!("must have at most {MAX_WORDS} words")));
        }
        let optional = |field, id: &str| if id.is_empty() { Ok(None) } else { text::id(field, id).map(Some) };
        let (room, sender) = (optional("roomId", search.room)?, optional("from", search.sender)?);
        let readers = if search.moderator {
            room.map(|_| Readers::Moderator).ok_or_else(|| Error::field("roomId", "must be given"))?
        } else {
            Readers::Users(vec![text::id("reader", search.reader)?])
        };
        let after = if search.cursor.is_empty() { Place::above_all() } else { cursor::decode(search.cursor)? };
        let below = after.bounded().min(search.before_ms.map_or_else(Place::above_all, Place::before));
        let (store, limit) = (self.store.clone(), search.limit as usize);
        let finder = Finder { store, query, readers, room, sender, below, limit };
        let room = room.map(|room| (self.partition(room), room));
        if let Some(room) = room {
            let head_alone = Limit { events: 0, bytes: 1 };
            let (page, access) = self.store.list(room, Window::Latest, head_alone, finder.readers.clone()).await?;
            self.check_readable(&finder.readers, &page, &access)?;
        }
        let found = self.searches.run(Box::pin(finder.find())).await?;
        self.saw(found.epoch);
        Ok(found)
    }
}

impl Finder {
    pub async fn find(self) -> Result<Found> {
        // Read first: the index only grows.
        let now_ms = now_ms();
        let up_to_ms = self.store.searches().unindexed_since().await?.map_or(now_ms, |since| since.min(now_ms));
        let mut found = Found { up_to_ms, ..Found::default() };
        let (rooms, members_only) = match (self.room, &self.readers) {
            (Some(room), _) => (vec![room], false),
            (None, readers) => {
                let user = readers.users().first().copied().unwrap_or_default();
                (self.store.searches().rooms_of(user, MAX_ROOMS).await?, true)
            }
        };
        let terms = self.query.needed();
        if terms.is_empty() || rooms.is_empty() {
            found.epoch = self.store.heads().await?.epoch;
            return Ok(found);
        }
        let wanted = Wanted { terms, rooms, sender: self.sender, below: self.below, limit: 0 };
        self.collect(&mut found, wanted, members_only).await?;
        Ok(found)
    }

    /// Looks up candidates until the page is full and another message follows, or there are no more candidates.
    async fn collect(&self, found: &mut Found, mut wanted: Wanted, members_only: bool) -> Result<()> {
        let (mut bytes, mut last) = (0, self.below);
        for _ in 0..ROUNDS {
            wanted.limit = ((self.limit - found.items.len()) as u32 + 1).max(MIN_CANDIDATES);
            let candidates = self.store.searches().find_messages(wanted.clone()).await?;
            let messages = candidates.iter().map(|candidate| (candidate.room, candidate.seq)).collect();
            let read = ReadMessages { messages, readers: self.readers.clone(), members_only };
            let (epoch, events) = self.store.searches().read_messages(read).await?;
            found.epoch = epoch;
            let mut events = events.into_iter().peekable();
            for candidate in &candidates {
                let Some(event) = events.next_if(|event| is_at(event, candidate)) else { continue };
                if let Some(highlights) = self.matches(&event) {
                    bytes += event.size();
                    if found.items.len() == self.limit || (bytes > MAX_BYTES && !found.items.is_empty()) {
                        found.next_cursor = cursor::encode(&last);
                        return Ok(());
                    }
                    found.items.push((event, highlights));
                    last = candidate.place;
                }
            }
            if candidates.len() < wanted.limit as usize {
                return Ok(());
            }
            wanted.below = candidates.last().map_or(wanted.below, |candidate| candidate.place);
        }
        found.next_cursor = cursor::encode(&wanted.below);
        Ok(())
    }

    /// Checks a message itself: the index may be older, and terms do not say all.
    fn matches(&self, event: &Event) -> Option<Highlights> {
        let is_wanted = self.room.is_none_or(|room| room == event.data.room)
            && self.sender.is_none_or(|sender| sender == event.data.sender);
        if is_wanted { self.query.highlights(&event.data.body.content) } else { None }
    }
}

fn is_at(event: &Event, candidate: &Candidate) -> bool {
    event.data.room == candidate.room.1 && event.seq == candidate.seq
}

#[cfg(test)]
mod tests;
