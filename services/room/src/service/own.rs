//! The list of a user's own rooms, by their last activity.

use std::cmp::Reverse;
use std::collections::HashMap;

use confab_common::clock::now_ms;
use confab_common::{Error, Result, cursor, text};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{MAX_QUERY, Page, Rooms, page_limit};
use crate::log::LastTimes;
use crate::store::{Position, Seen, searchable};

/// An event that was appended this long ago is visible in the log: longer than an append takes, plus the differences
/// between the clocks of the machines.
const SETTLED_MS: i64 = 10_000;
/// Maximum rooms that a cursor names; it then fits into a URL.
const MAX_RECENT: usize = 250;

/// A place in the list: the time of the last activity, and the room. The list descends.
type Place = (i64, Uuid);

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// The end of the page before.
    below: Place,
    /// The hash of the query.
    query: u64,
    order: Order,
}

/// The order of the first page, which all pages keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    /// By the last activity.
    Activity {
        /// The first page saw every event up to this time.
        settled_ms: i64,
        /// The rooms on the pages before whose activity is newer, as short hashes of their ids.
        recent: Vec<u32>,
    },
    /// By the creation, because a log of the release before has answered.
    Creation,
}

impl Rooms {
    /// Lists the rooms of which a user is a member, by their last activity as of the first page, the most recent first.
    pub async fn list_own(&self, user: Uuid, limit: u32, page: &str, query: &str) -> Result<Page> {
        let limit = page_limit(limit)?;
        let query = searchable(&text::bounded("q", query, MAX_QUERY)?);
        let hash = xxh3_64(query.as_bytes());
        let cursor = match page {
            "" => None,
            page => match cursor::decode::<Cursor>(page)? {
                cursor if cursor.query == hash => Some(cursor),
                _ => return Err(Error::field("cursor", "belongs to another q")),
            },
        };
        let rooms = self.store.own_rooms(user, query).await?;
        let (mut places, order) = match cursor {
            None => self.first_places(&rooms).await?,
            Some(Cursor { below, order, .. }) => (self.places_below(&rooms, below, &order).await?, order),
        };
        let more = places.len() > limit as usize;
        places.truncate(limit as usize);
        let last = places.last().copied().filter(|_| more);
        let next = last.map(|below| cursor::encode(&Cursor { below, query: hash, order: order.after(&places) }));
        Ok(Page { rooms: self.read_own(user, &places).await?, next })
    }

    /// Returns all places in descending order, and the order for the pages that follow.
    async fn first_places(&self, rooms: &[Position]) -> Result<(Vec<Place>, Order)> {
        let settled_ms = now_ms() - SETTLED_MS;
        let Some(times) = self.relay.last_times(&ids(rooms), settled_ms).await? else {
            return Ok((descending(rooms.iter().map(created)), Order::Creation));
        };
        let places = descending(rooms.iter().map(|room| (newest(room, &times), room.id)));
        // At most this many rooms have a newer activity.
        let bound = places.get(MAX_RECENT).map_or(settled_ms, |(at, _)| settled_ms.max(*at));
        Ok((places, Order::Activity { settled_ms: bound, recent: Vec::new() }))
    }

    /// Returns the places after the end of a page in descending order.
    async fn places_below(&self, rooms: &[Position], below: Place, order: &Order) -> Result<Vec<Place>> {
        let Order::Activity { settled_ms, recent } = order else {
            return Ok(descending(rooms.iter().map(created).filter(|place| *place < below)));
        };
        let times = self.relay.last_times(&ids(rooms), *settled_ms).await?;
        // Another replica may answer a repeat.
        let times = times.ok_or_else(|| Error::unavailable("the log"))?;
        let place = |room: &Position| {
            let unchanged = (newest(room, &times), room.id);
            if unchanged < below {
                return Some(unchanged);
            }
            // The room was on a page before, or it has become active since the first page.
            let until = times.get(&room.id).and_then(|times| times.until).unwrap_or(room.created_at_ms);
            Some((until, room.id)).filter(|place| *place < below && !recent.contains(&short(room.id)))
        };
        Ok(descending(rooms.iter().filter_map(place)))
    }

    /// Reads the rooms of a page, in the order of the places.
    async fn read_own(&self, user: Uuid, places: &[Place]) -> Result<Vec<Seen>> {
        let rooms = places.iter().map(|(_, room)| *room).collect();
        let seen = self.store.read_own(user, rooms).await?;
        let mut seen = seen.into_iter().map(|seen| (seen.room.id, seen)).collect::<HashMap<_, _>>();
        Ok(places.iter().filter_map(|(_, room)| seen.remove(room)).collect())
    }
}

impl Order {
    /// Returns the order for the page after these places.
    fn after(self, places: &[Place]) -> Self {
        match self {
            Self::Activity { settled_ms, mut recent } => {
                recent.extend(places.iter().filter(|(at, _)| *at > settled_ms).map(|(_, room)| short(*room)));
                Self::Activity { settled_ms, recent }
            }
            Self::Creation => Self::Creation,
        }
    }
}

fn ids(rooms: &[Position]) -> Vec<Uuid> {
    rooms.iter().map(|room| room.id).collect()
}

fn created(room: &Position) -> Place {
    (room.created_at_ms, room.id)
}

/// Returns the time of a room's newest event, or of its creation.
fn newest(room: &Position, times: &HashMap<Uuid, LastTimes>) -> i64 {
    times.get(&room.id).and_then(|times| times.newest).unwrap_or(room.created_at_ms)
}

fn descending(places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut places = places.collect::<Vec<_>>();
    places.sort_unstable_by_key(|place| Reverse(*place));
    places
}

/// The random end of a UUIDv7.
fn short(room: Uuid) -> u32 {
    room.as_u128() as u32
}
