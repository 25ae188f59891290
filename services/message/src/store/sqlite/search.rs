//! The search of messages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::rows::{self, mark_deleted};
use super::{Sqlite, rooms};
use crate::store::search::{
    Candidate, IndexPage, Indexed, NEWEST, Place, ROOMS_AT_ONCE, ReadMessages, SearchStore, Wanted,
};
use crate::store::{Event, Kind, Readers, number};
use crate::words::{Needed, of_room, of_sender};

/// The lower bits of a message's id, which tell apart the messages of a millisecond.
const NUMBER_BITS: u32 = 20;
/// How long one step of indexing occupies the writer; a single message with 10,000 terms can take about 100 ms.
const WRITE_LIMIT: Duration = Duration::from_millis(5);
/// How long one look-up may take.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);

const FIND: &str = "/* find_messages */ SELECT s.id, s.partition, s.room_id, s.seq FROM search_terms t
    JOIN search s ON s.id = t.rowid WHERE t.search_terms MATCH ?1 AND t.rowid < ?2 ORDER BY t.rowid DESC LIMIT ?3";

impl SearchStore for Sqlite {
    fn claim_unindexed(&self, _: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<(u32, u64)>>> {
        // This process is alone on its database.
        let read = move |connection: &Connection| {
            let read = "/* claim_unindexed */ SELECT p.partition, coalesce(s.position, 0)
                FROM partitions p LEFT JOIN search_progress s ON s.partition = p.partition
                WHERE p.head > coalesce(s.position, 0) ORDER BY p.head - coalesce(s.position, 0) LIMIT ?1";
            let mut read = connection.prepare_cached(read)?;
            let partitions = read.query_map([most], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            Ok(partitions.collect::<rusqlite::Result<_>>()?)
        };
        self.database.read(read).boxed()
    }

    fn index(&self, page: IndexPage) -> BoxFuture<'_, Result<bool>> {
        async move {
            let page = Arc::new(page);
            let mut from = 0;
            loop {
                let part = page.clone();
                match self.database.write(move |connection| index(connection, &part, from)).await? {
                    Step::Elsewhere => return Ok(false),
                    Step::Done => return Ok(true),
                    Step::Next(next) => from = next,
                }
                // The writer is left to the appends for at least as long.
                tokio::time::sleep(WRITE_LIMIT).await;
            }
        }
        .boxed()
    }

    fn forget_closed(&self, most: u32) -> BoxFuture<'_, Result<bool>> {
        async move {
            // Without such rooms, the writer is left to the appends.
            if self.database.read(closed_room).await?.is_none() {
                return Ok(false);
            }
            self.database.write(move |connection| forget_closed(connection, most)).await
        }
        .boxed()
    }

    fn unindexed_since(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        let read = |connection: &Connection| {
            let read = "/* unindexed_since */ SELECT min((
                    SELECT e.created_at FROM events e WHERE e.partition = p.partition AND e.position > coalesce(s.position, 0)
                    ORDER BY e.position LIMIT 1
                )) FROM partitions p LEFT JOIN search_progress s ON s.partition = p.partition
                WHERE p.head > coalesce(s.position, 0)";
            Ok(connection.prepare_cached(read)?.query_row([], |row| row.get(0))?)
        };
        self.database.read(read).boxed()
    }

    fn reindex(&self) -> BoxFuture<'_, Result<()>> {
        let write = |connection: &Connection| {
            connection.execute("/* reindex */ DELETE FROM search_progress", [])?;
            Ok(())
        };
        self.database.write(write).boxed()
    }

    fn rooms_of(&self, user: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let read = move |connection: &Connection| {
            let read = "/* rooms_of */ SELECT room_id FROM room_members WHERE user_id = ?1 ORDER BY room_id LIMIT ?2";
            let mut read = connection.prepare_cached(read)?;
            let rooms = read.query_map(params![user.as_bytes(), most], |row| rows::uuid(row, 0))?;
            Ok(rooms.collect::<rusqlite::Result<_>>()?)
        };
        self.database.read(read).boxed()
    }

    fn find_messages(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Candidate>>> {
        self.searchers.read_within(LOOK_UP_LIMIT, move |connection| find_messages(connection, &wanted)).boxed()
    }

    fn read_messages(&self, read: ReadMessages) -> BoxFuture<'_, Result<(Uuid, Vec<Event>)>> {
        self.searchers.read(move |connection| read_messages(connection, &read)).boxed()
    }
}

/// What one step of indexing a page has done.
enum Step {
    /// The index is not at the start of the page.
    Elsewhere,
    /// The messages below this one are indexed.
    Next(usize),
    Done,
}

/// Indexes messages of a page, from this one on. The position moves with the last one; a page that is interrupted is
/// indexed again, which changes nothing in the messages that are indexed.
fn index(connection: &Connection, page: &IndexPage, from: usize) -> Result<Step> {
    let begun = Instant::now();
    let read = "/* index */ SELECT position FROM search_progress WHERE partition = ?1";
    let position =
        connection.prepare_cached(read)?.query_row([page.partition], |row| row.get::<_, i64>(0)).optional()?;
    if position.unwrap_or_default() != number(page.after) {
        return Ok(Step::Elsewhere);
    }
    for (n, message) in page.messages.iter().enumerate().skip(from) {
        if n > from && begun.elapsed() > WRITE_LIMIT {
            return Ok(Step::Next(n));
        }
        index_message(connection, page.partition, message)?;
    }
    let close = "/* index */ INSERT INTO search_closed (partition, room_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let mut close = connection.prepare_cached(close)?;
    for room in &page.closed {
        close.execute(params![page.partition, room.as_bytes()])?;
    }
    let advance = "/* index */ INSERT INTO search_progress (partition, position) VALUES (?1, ?2)
        ON CONFLICT (partition) DO UPDATE SET position = excluded.position";
    connection.prepare_cached(advance)?.execute(params![page.partition, number(page.up_to)])?;
    Ok(Step::Done)
}

fn index_message(connection: &Connection, partition: u32, message: &Indexed) -> Result<()> {
    let read = "/* index */ SELECT id, terms FROM search WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let key = params![partition, message.room.as_bytes(), number(message.seq)];
    let former = connection
        .prepare_cached(read)?
        .query_row(key, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    if former.as_ref().is_some_and(|(_, terms)| *terms == message.terms) {
        return Ok(());
    }
    let id = former.as_ref().map(|(id, _)| *id);
    if let Some((id, terms)) = former {
        remove(connection, id, &terms)?;
    }
    if message.terms.is_empty() {
        return Ok(());
    }
    let id = id.map_or_else(|| free_id(connection, message.created_at_ms), Ok)?;
    let insert = "/* index */ INSERT INTO search (id, partition, room_id, seq, terms) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![id, partition, message.room.as_bytes(), number(message.seq), message.terms];
    connection.prepare_cached(insert)?.execute(values)?;
    let insert = "/* index */ INSERT INTO search_terms (rowid, terms) VALUES (?1, ?2)";
    connection.prepare_cached(insert)?.execute(params![id, message.terms])?;
    Ok(())
}

fn remove(connection: &Connection, id: i64, terms: &str) -> Result<()> {
    let remove = "/* unindex */ INSERT INTO search_terms (search_terms, rowid, terms) VALUES ('delete', ?1, ?2)";
    connection.prepare_cached(remove)?.execute(params![id, terms])?;
    connection.prepare_cached("/* unindex */ DELETE FROM search WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The id after those of the same millisecond. The messages of a room are indexed in their order.
fn free_id(connection: &Connection, created_at_ms: i64) -> Result<i64> {
    let first = Place::before(created_at_ms).parts().0 << NUMBER_BITS;
    let read = "/* index */ SELECT max(id) FROM search WHERE id >= ?1 AND id < ?2";
    let range = params![first, first + (1 << NUMBER_BITS)];
    let last = connection.prepare_cached(read)?.query_row(range, |row| row.get::<_, Option<i64>>(0))?;
    Ok(last.map_or(first, |last| last + 1))
}

fn closed_room(connection: &Connection) -> Result<Option<(u32, Uuid)>> {
    let read = "/* forget_closed */ SELECT partition, room_id FROM search_closed LIMIT 1";
    let room = connection.prepare_cached(read)?.query_row([], |row| Ok((row.get(0)?, rows::uuid(row, 1)?)));
    Ok(room.optional()?)
}

fn forget_closed(connection: &Connection, most: u32) -> Result<bool> {
    let begun = Instant::now();
    let Some((partition, room)) = closed_room(connection)? else { return Ok(false) };
    let read = "/* forget_closed */ SELECT id, terms FROM search WHERE partition = ?1 AND room_id = ?2 LIMIT ?3";
    let messages = connection
        .prepare_cached(read)?
        .query_map(params![partition, room.as_bytes(), most], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
    for (id, terms) in &messages {
        remove(connection, *id, terms)?;
        if begun.elapsed() > WRITE_LIMIT {
            return Ok(true);
        }
    }
    if messages.len() < most as usize {
        let done = "/* forget_closed */ DELETE FROM search_closed WHERE partition = ?1 AND room_id = ?2";
        connection.prepare_cached(done)?.execute(params![partition, room.as_bytes()])?;
    }
    Ok(true)
}

fn find_messages(connection: &Connection, wanted: &Wanted) -> Result<Vec<Candidate>> {
    let terms = expression(wanted);
    if wanted.rooms.len() > ROOMS_AT_ONCE {
        let rooms = wanted.rooms.iter().collect::<HashSet<_>>();
        let mut found = look_up(connection, &terms, wanted.below, NEWEST)?;
        let is_all = found.len() < NEWEST as usize;
        found.retain(|candidate| rooms.contains(&candidate.room.1));
        found.truncate(wanted.limit as usize);
        if is_all || found.len() == wanted.limit as usize {
            return Ok(found);
        }
    }
    let mut candidates = Vec::new();
    for rooms in wanted.rooms.chunks(ROOMS_AT_ONCE) {
        let rooms = rooms.iter().map(|room| format!("\"{}\"", of_room(*room))).collect::<Vec<_>>().join(" OR ");
        candidates.extend(look_up(connection, &format!("{terms} AND ({rooms})"), wanted.below, wanted.limit)?);
    }
    candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.place));
    candidates.truncate(wanted.limit as usize);
    Ok(candidates)
}

fn look_up(connection: &Connection, terms: &str, below: Place, limit: u32) -> Result<Vec<Candidate>> {
    let (at_ms, _, number) = below.parts();
    let below = (at_ms << NUMBER_BITS) + number.min(1 << NUMBER_BITS);
    let mut find = connection.prepare_cached(FIND)?;
    let candidates = find.query_map(params![terms, below, limit], |row| {
        let id = row.get::<_, i64>(0)?;
        let place = Place::new(id >> NUMBER_BITS, Uuid::nil(), id & ((1 << NUMBER_BITS) - 1));
        let room = (row.get(1)?, rows::uuid(row, 2)?);
        Ok(Candidate { place, room, seq: row.get::<_, i64>(3)? as u64 })
    })?;
    Ok(candidates.collect::<rusqlite::Result<_>>()?)
}

/// The terms of a search, except those of rooms. Terms have no quotes.
fn expression(wanted: &Wanted) -> String {
    let term = |Needed { term, prefix }: &Needed| format!("\"{term}\"{}", if *prefix { "*" } else { "" });
    let sender = wanted.sender.map(|sender| format!("\"{}\"", of_sender(sender)));
    wanted.terms.iter().map(term).chain(sender).collect::<Vec<_>>().join(" AND ")
}

fn read_messages(connection: &Connection, read: &ReadMessages) -> Result<(Uuid, Vec<Event>)> {
    let mut events = Vec::with_capacity(read.messages.len());
    for (room, seq) in &read.messages {
        let head = rooms::head(connection, *room)?;
        let may_read = match &read.readers {
            Readers::Moderator => true,
            Readers::Users(users) => {
                let is_open = !head.private && !read.members_only;
                is_open || !rooms::members(connection, *room, users)?.is_empty()
            }
        };
        if !head.exists || head.closed || !may_read {
            continue;
        }
        let message = rows::message(connection, *room, *seq)?;
        let is_deleted = |message: &Event| message.state.as_ref().is_some_and(|state| state.deleted_by.is_some());
        let is_message = |message: &Event| matches!(message.data.kind, Kind::Message | Kind::File);
        events.extend(message.filter(|message| is_message(message) && !is_deleted(message)));
    }
    mark_deleted(connection, events.iter_mut())?;
    Ok((rows::epoch(connection)?, events))
}
