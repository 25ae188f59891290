//! The reads of changed messages, and the erasure of deleted ones.

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::rows::{self, NEWEST_FIRST, OLDEST_FIRST, Taken, mark_deleted};
use super::{Sqlite, reactions, rooms};
use crate::store::{
    ChangeStore, Changed, ChangedBetween, Erased, Kind, Limit, MAX_CAUGHT_UP, MAX_PINS, MAX_VERSIONS, Page, Readers,
    RoomAccess, RoomKey, Version, Versions, Window, number,
};

/// A room as a read finds it.
struct Room {
    key: RoomKey,
    head: rooms::Head,
    access: RoomAccess,
    may_read: bool,
}

impl Room {
    fn read(connection: &Connection, key: RoomKey, readers: &Readers) -> Result<Self> {
        let head = rooms::head(connection, key)?;
        let access = rooms::access(connection, key, &head, readers.users())?;
        let may_read = readers.may_read(&access);
        Ok(Self { key, head, access, may_read })
    }

    /// Returns the limit, or one that permits nothing if the room is hidden.
    fn limit(&self, limit: Limit) -> Limit {
        if self.may_read { limit } else { Limit { events: 0, ..limit } }
    }

    /// Returns the page of these events.
    fn page(&self, connection: &Connection, taken: Taken, last: i64) -> Result<Page> {
        let mut events = taken.events;
        mark_deleted(connection, events.iter_mut())?;
        let (head, messages) = (self.head.seq as u64, self.head.messages as u64);
        Ok(Page { epoch: rows::epoch(connection)?, head, last: last as u64, messages, events })
    }

    /// Takes the events of a window without changes.
    fn items(&self, connection: &Connection, window: Window, taken: &mut Taken, most: i64) -> Result<()> {
        let (partition, room) = self.key;
        let (above, below, newest_first) = window.bounds();
        let bounds = (above.min(self.head.seq), below.min(self.head.seq + 1));
        let statement = if newest_first { NEWEST_FIRST } else { OLDEST_FIRST };
        for (low, high) in ranges(connection, self.key, bounds, most, newest_first)? {
            let range = params![partition, room.as_bytes(), low, high, i64::MAX];
            if !taken.take(connection, statement, range, false)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns the newest event that is no change.
    fn last_item(&self, connection: &Connection) -> Result<i64> {
        let read = "/* list */ SELECT first_seq, last_seq FROM change_runs WHERE partition = ?1 AND room_id = ?2
            ORDER BY first_seq DESC LIMIT 1";
        let key = params![self.key.0, self.key.1.as_bytes()];
        let run = connection
            .prepare_cached(read)?
            .query_row(key, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        Ok(run.filter(|(_, last)| *last >= self.head.seq).map_or(self.head.seq, |(first, _)| first - 1))
    }

    /// Takes messages that were changed. They are sought by their revision or by their `seq`, whichever has fewer
    /// numbers, so that neither the changes of newer messages nor old messages are scanned.
    fn changed(&self, connection: &Connection, between: ChangedBetween, taken: &mut Taken) -> Result<Changed> {
        let (after, from) = (number(between.after), number(between.from));
        let up_to = number(between.up_to).min(self.head.seq);
        let read = if self.head.seq - after <= up_to - from {
            "/* changes */ SELECT seq FROM message_state INDEXED BY message_state_revision
                WHERE partition = ?1 AND room_id = ?2 AND revision > ?3 AND seq >= ?4 AND seq <= ?5 ORDER BY revision"
        } else {
            "/* changes */ SELECT seq FROM message_state
                WHERE partition = ?1 AND room_id = ?2 AND +revision > ?3 AND seq >= ?4 AND seq <= ?5 ORDER BY +revision"
        };
        let values = params![self.key.0, self.key.1.as_bytes(), after, from, up_to];
        let before = taken.events.len();
        let (mut statement, mut more) = (connection.prepare_cached(read)?, false);
        let mut seqs = statement.query(values)?;
        while self.may_read
            && !more
            && let Some(row) = seqs.next()?
        {
            let message = rows::message(connection, self.key, row.get::<_, i64>(0)? as u64)?;
            more = message.is_some_and(|message| !taken.add(message));
        }
        let mut messages = taken.events.split_off(before);
        mark_deleted(connection, messages.iter_mut())?;
        Ok(Changed { messages, more })
    }
}

/// Returns the ranges of `seq`, both bounds exclusive, that contain exactly the next `most` events between two seqs,
/// both exclusive, without changes. The upper bound is at most the room's head and 1: the numbers of a room are dense,
/// so the size of a range is known.
pub fn ranges(
    connection: &Connection,
    (partition, room): RoomKey,
    (above, below): (i64, i64),
    most: i64,
    newest_first: bool,
) -> Result<Vec<(i64, i64)>> {
    let read = if newest_first {
        "/* list */ SELECT first_seq, last_seq FROM change_runs WHERE partition = ?1 AND room_id = ?2 AND first_seq < ?3
            ORDER BY first_seq DESC"
    } else {
        "/* list */ SELECT first_seq, last_seq FROM change_runs WHERE partition = ?1 AND room_id = ?2 AND first_seq >= coalesce((
                SELECT max(first_seq) FROM change_runs WHERE partition = ?1 AND room_id = ?2 AND first_seq <= ?3), 0)
            ORDER BY first_seq"
    };
    let mut statement = connection.prepare_cached(read)?;
    let from = if newest_first { below } else { above };
    let mut runs = statement.query(params![partition, room.as_bytes(), from])?;
    let (mut low, mut high, mut remaining, mut ranges) = (above, below, most, Vec::new());
    while remaining > 0 && high - low > 1 {
        let run = runs.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?))).transpose()?;
        let range = if newest_first {
            (run.map_or(low, |(_, last): (i64, i64)| low.max(last)).max(high - 1 - remaining), high)
        } else {
            (low, run.map_or(high, |(first, _)| high.min(first)).min(low + 1 + remaining))
        };
        if range.1 - range.0 > 1 {
            remaining -= range.1 - range.0 - 1;
            ranges.push(range);
        }
        match run {
            Some((first, _)) if newest_first => high = high.min(first),
            Some((_, last)) => low = low.max(last),
            None => break,
        }
    }
    Ok(ranges)
}

/// Returns a page of a room's history without changes.
pub fn list(
    connection: &Connection,
    room: RoomKey,
    window: Window,
    limit: Limit,
    readers: &Readers,
) -> Result<(Page, RoomAccess)> {
    let room = Room::read(connection, room, readers)?;
    let mut taken = Taken::up_to(room.limit(limit));
    room.items(connection, window, &mut taken, i64::from(room.limit(limit).events))?;
    if window.bounds().2 {
        taken.events.reverse();
    }
    let last = room.last_item(connection)?;
    Ok((room.page(connection, taken, last)?, room.access))
}

impl ChangeStore for Sqlite {
    fn read_events(
        &self,
        (partition, room): RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let found = Room::read(connection, (partition, room), &readers)?;
            let limit = found.limit(limit);
            let (above, below, newest_first) = window.bounds();
            let statement = if newest_first { NEWEST_FIRST } else { OLDEST_FIRST };
            let mut taken = Taken::up_to(limit);
            let values = params![partition, room.as_bytes(), above, below, limit.events];
            taken.take(connection, statement, values, false)?;
            if newest_first {
                taken.events.reverse();
            }
            let last = found.head.seq;
            Ok((found.page(connection, taken, last)?, found.access))
        };
        self.database.read(read).boxed()
    }

    fn catch_up(
        &self,
        room: RoomKey,
        after: u64,
        from: u64,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let room = Room::read(connection, room, &readers)?;
            let most = i64::from(room.limit(limit).events);
            let mut taken = Taken::up_to(Limit { events: MAX_CAUGHT_UP, ..limit });
            room.items(connection, Window::After(after), &mut taken, most)?;
            let changed = room.changed(connection, ChangedBetween { after, from, up_to: after }, &mut taken)?;
            let last = room.last_item(connection)?;
            Ok((room.page(connection, taken, last)?, changed, room.access))
        };
        self.database.read(read).boxed()
    }

    fn changes(
        &self,
        room: RoomKey,
        between: ChangedBetween,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let room = Room::read(connection, room, &readers)?;
            let mut taken = Taken::up_to(limit);
            let changed = room.changed(connection, between, &mut taken)?;
            let last = room.last_item(connection)?;
            Ok((room.page(connection, taken, last)?, changed, room.access))
        };
        self.database.read(read).boxed()
    }

    fn versions(&self, room: RoomKey, seq: u64, readers: Readers) -> BoxFuture<'_, Result<(Versions, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let found = Room::read(connection, room, &readers)?;
            let role =
                readers.users().first().map(|reader| rooms::role(connection, room, *reader)).transpose()?.flatten();
            let mut versions = Versions { author: None, role, versions: Vec::new() };
            let message = if found.may_read { rows::message(connection, room, seq)? } else { None };
            let message = message.filter(|message| matches!(message.data.kind, Kind::Message | Kind::File));
            let Some(message) = message else { return Ok((versions, found.access)) };
            versions.author = Some(message.data.sender);
            if message.state.as_ref().is_none_or(|state| state.deleted_by.is_none()) {
                versions.versions = texts(connection, room, seq)?;
            }
            Ok((versions, found.access))
        };
        self.database.read(read).boxed()
    }

    fn pins(&self, room: RoomKey, readers: Readers) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let found = Room::read(connection, room, &readers)?;
            let mut taken = Taken::up_to(found.limit(Limit { events: MAX_PINS, bytes: u32::MAX }));
            let read = "/* pins */ SELECT seq FROM message_state
                WHERE partition = ?1 AND room_id = ?2 AND pinned IS NOT NULL ORDER BY pinned DESC";
            let mut statement = connection.prepare_cached(read)?;
            let mut seqs = statement.query(params![room.0, room.1.as_bytes()])?;
            while let Some(row) = seqs.next()? {
                if let Some(message) = rows::message(connection, room, row.get::<_, i64>(0)? as u64)? {
                    taken.add(message);
                }
            }
            let last = found.last_item(connection)?;
            Ok((found.page(connection, taken, last)?, found.access))
        };
        self.database.read(read).boxed()
    }

    fn erase_deleted(&self, messages: u32, edits: u32) -> BoxFuture<'_, Result<Erased>> {
        async move {
            // Without deleted messages, the writer is left to the appends.
            if !self.database.read(has_deleted).await? {
                return Ok(Erased::default());
            }
            self.database.write(move |connection| erase_deleted(connection, messages, edits)).await
        }
        .boxed()
    }
}

/// Returns the newest texts of a message that is not deleted.
fn texts(connection: &Connection, room: RoomKey, seq: u64) -> Result<Vec<Version>> {
    let read = "/* versions */ SELECT seq FROM message_edits WHERE partition = ?1 AND room_id = ?2 AND target = ?3
        ORDER BY seq DESC LIMIT ?4";
    let values = params![room.0, room.1.as_bytes(), number(seq), MAX_VERSIONS as i64];
    let mut statement = connection.prepare_cached(read)?;
    let mut seqs = statement.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    seqs.push(number(seq));
    seqs.truncate(MAX_VERSIONS);
    let mut versions = Vec::with_capacity(seqs.len());
    for seq in seqs.into_iter().rev() {
        if let Some(event) = rows::original(connection, room, seq)? {
            let by = (event.data.sender, event.data.body.sender_username.clone());
            let content = event.data.body.content.clone();
            versions.push(Version { revision: event.seq, content, at_ms: event.created_at_ms, by });
        }
    }
    Ok(versions)
}

fn erase_deleted(connection: &Connection, messages: u32, edits: u32) -> Result<Erased> {
    let read = "/* erase_deleted */ SELECT partition, room_id, seq, erased_to FROM message_state WHERE to_erase
        ORDER BY deleted_at LIMIT ?1";
    let pending = connection
        .prepare_cached(read)?
        .query_map([messages], |row| Ok((row.get(0)?, rows::uuid(row, 1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<Vec<(u32, Uuid, i64, i64)>>>()?;
    let next = "/* erase_deleted */ SELECT seq FROM message_edits
        WHERE partition = ?1 AND room_id = ?2 AND target = ?3 AND seq > ?4 ORDER BY seq LIMIT ?5";
    let erase = "/* erase_deleted */ UPDATE events
        SET body = json_object('sender_username', json_extract(body, '$.sender_username'))
        WHERE partition = ?1 AND room_id = ?2 AND seq = ?3
            AND body <> json_object('sender_username', json_extract(body, '$.sender_username'))";
    let done = "/* erase_deleted */ UPDATE message_state SET to_erase = ?4, erased_to = ?5
        WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let mut erased = Erased::default();
    for (partition, key, seq, erased_to) in pending {
        let room = key.as_bytes();
        let seqs = connection
            .prepare_cached(next)?
            .query_map(params![partition, room, seq, erased_to, edits], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        for seq in seqs.iter().copied().chain([seq]) {
            erased.events += connection.prepare_cached(erase)?.execute(params![partition, room, seq])? as u64;
        }
        let reactions = reactions::erase(connection, (partition, key), seq, edits)?;
        let remains = seqs.len() == edits as usize || reactions == edits as usize;
        let erased_to = seqs.last().copied().unwrap_or(erased_to);
        connection.prepare_cached(done)?.execute(params![partition, room, seq, remains, erased_to])?;
    }
    erased.more = has_deleted(connection)?;
    Ok(erased)
}

/// Whether deleted messages with texts remain.
fn has_deleted(connection: &Connection) -> Result<bool> {
    let remaining = "/* erase_deleted */ SELECT 1 FROM message_state WHERE to_erase LIMIT 1";
    Ok(connection.prepare_cached(remaining)?.exists([])?)
}
