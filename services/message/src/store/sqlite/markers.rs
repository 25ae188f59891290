//! The read markers of members.

use std::collections::HashMap;

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::changes::ranges;
use super::rooms::{self, Head};
use super::{Sqlite, rows};
use crate::store::{
    Level, MAX_MARKERS, Mark, MarkStore, Marked, Marker, Notify, Readers, Receipt, RoomAccess, RoomKey, number,
};

/// A member's marker as it is stored.
struct Stored {
    since: i64,
    seq: Option<i64>,
    ordinal: Option<i64>,
    at_ms: Option<i64>,
    unread_at_ms: Option<i64>,
}

/// The columns of [`stored`].
const STORED: &str = "since_seq, read_seq, read_ordinal, read_at, unread_at";

fn stored(row: &Row, first: usize) -> rusqlite::Result<Stored> {
    Ok(Stored {
        since: row.get(first)?,
        seq: row.get(first + 1)?,
        ordinal: row.get(first + 2)?,
        at_ms: row.get(first + 3)?,
        unread_at_ms: row.get(first + 4)?,
    })
}

impl Stored {
    /// Returns the `seq` at which the marker stands.
    fn seq(&self, head: &Head) -> i64 {
        self.seq.unwrap_or_else(|| self.since.max(head.counted_from.unwrap_or(head.seq))).min(head.seq)
    }

    fn ordinal(&self, connection: &Connection, room: RoomKey, head: &Head) -> Result<i64> {
        match self.ordinal {
            Some(ordinal) => Ok(ordinal),
            None if head.counted_from.is_some_and(|from| from >= self.since) => Ok(0),
            None => ordinal_at(connection, room, self.since),
        }
    }
}

/// Returns the ordinal of the newest event up to `seq` that is no change; 0 without an ordinal.
fn ordinal_at(connection: &Connection, room: RoomKey, seq: i64) -> Result<i64> {
    let Some((_, high)) = ranges(connection, room, (0, seq + 1), 1, true)?.into_iter().next() else { return Ok(0) };
    let read = "/* mark */ SELECT ordinal FROM events WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let key = params![room.0, room.1.as_bytes(), high - 1];
    let ordinal = connection.prepare_cached(read)?.query_row(key, |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(ordinal.flatten().unwrap_or(0))
}

/// Returns the number of messages above an ordinal that are not deleted.
fn unread_above(connection: &Connection, room: RoomKey, head: &Head, ordinal: i64) -> Result<u64> {
    if head.messages <= ordinal {
        return Ok(0);
    }
    let count = "/* unread */ SELECT count(*) FROM message_state
        WHERE partition = ?1 AND room_id = ?2 AND deleted_ordinal > ?3";
    let key = params![room.0, room.1.as_bytes(), ordinal];
    let deleted: i64 = connection.prepare_cached(count)?.query_row(key, |row| row.get(0))?;
    Ok((head.messages - ordinal - deleted).max(0) as u64)
}

fn mark(connection: &Connection, mark: &Mark, has_receipts: bool, now_ms: i64) -> Result<Option<Marked>> {
    let (partition, room) = (mark.room.0, mark.room.1.as_bytes());
    let read =
        format!("/* mark */ SELECT {STORED} FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3");
    let key = params![partition, room, mark.user.as_bytes()];
    let member = connection.prepare_cached(&read)?.query_row(key, |row| stored(row, 0)).optional()?;
    let head = rooms::head(connection, mark.room)?;
    let Some(member) = member.filter(|_| head.exists && !head.closed) else { return Ok(None) };
    let target = number(mark.seq).min(head.seq);
    let stands_at = member.seq(&head);
    let is_late = member.unread_at_ms.is_some_and(|at| now_ms - i64::from(mark.age_ms) < at);
    let before = unread_above(connection, mark.room, &head, member.ordinal(connection, mark.room, &head)?)?;
    if !mark.back && (target <= stands_at || is_late) {
        let unread = before;
        return Ok(Some(Marked {
            seq: stands_at as u64,
            at_ms: member.at_ms,
            unread,
            moved: false,
            has_receipts,
            passed: 0,
        }));
    }
    let ordinal = if target == head.seq { head.messages } else { ordinal_at(connection, mark.room, target)? };
    let unread_at_ms = if mark.back { Some(now_ms) } else { member.unread_at_ms };
    let update = "/* mark */ UPDATE room_members SET read_seq = ?4, read_ordinal = ?5, read_at = ?6, unread_at = ?7
        WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let values = params![partition, room, mark.user.as_bytes(), target, ordinal, now_ms, unread_at_ms];
    connection.prepare_cached(update)?.execute(values)?;
    let unread = unread_above(connection, mark.room, &head, ordinal)?;
    let passed = before.saturating_sub(unread);
    Ok(Some(Marked { seq: target as u64, at_ms: Some(now_ms), unread, moved: true, has_receipts, passed }))
}

fn has_at_most(connection: &Connection, (partition, room): RoomKey, few: u32) -> Result<bool> {
    let count = "/* mark */ SELECT count(*) FROM (
        SELECT 1 FROM room_members WHERE partition = ?1 AND room_id = ?2 LIMIT ?3 + 1)";
    let key = params![partition, room.as_bytes(), few];
    Ok(connection.prepare_cached(count)?.query_row(key, |row| row.get::<_, u32>(0))? <= few)
}

fn marker(connection: &Connection, room: RoomKey, user: Uuid) -> Result<Option<Marker>> {
    let read = format!(
        "/* markers */ SELECT level, level_until, {STORED} FROM room_members
        WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3"
    );
    let key = params![room.0, room.1.as_bytes(), user.as_bytes()];
    let member = connection
        .prepare_cached(&read)?
        .query_row(key, |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, stored(row, 2)?)))
        .optional()?;
    let head = rooms::head(connection, room)?;
    let Some((level, until_ms, member)) = member.filter(|_| head.exists && !head.closed) else { return Ok(None) };
    let last = "/* markers */ SELECT last_message_at FROM room_heads WHERE partition = ?1 AND room_id = ?2";
    let last_message_at_ms =
        connection.prepare_cached(last)?.query_row(params![room.0, room.1.as_bytes()], |row| row.get(0))?;
    Ok(Some(Marker {
        room: room.1,
        seq: member.seq(&head) as u64,
        unread: unread_above(connection, room, &head, member.ordinal(connection, room, &head)?)?,
        head: head.seq as u64,
        last_message_at_ms,
        notify: Notify { level: Level::try_from(level)?, until_ms },
    }))
}

fn rooms_of(connection: &Connection, user: Uuid) -> Result<Vec<RoomKey>> {
    let read = "/* markers */ SELECT partition, room_id FROM room_members WHERE user_id = ?1 LIMIT ?2";
    let mut statement = connection.prepare_cached(read)?;
    let rooms =
        statement.query_map(params![user.as_bytes(), MAX_MARKERS], |row| Ok((row.get(0)?, rows::uuid(row, 1)?)))?;
    Ok(rooms.collect::<rusqlite::Result<_>>()?)
}

fn receipts(connection: &Connection, room: RoomKey, head: &Head, most: u32) -> Result<Vec<Receipt>> {
    let read = format!(
        "/* receipts */ SELECT user_id, {STORED} FROM room_members WHERE partition = ?1 AND room_id = ?2
        ORDER BY user_id LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&read)?;
    let receipts = statement.query_map(params![room.0, room.1.as_bytes(), most], |row| {
        let member = stored(row, 1)?;
        Ok(Receipt { user: rows::uuid(row, 0)?, seq: member.seq(head) as u64, at_ms: member.at_ms })
    })?;
    Ok(receipts.collect::<rusqlite::Result<_>>()?)
}

impl MarkStore for Sqlite {
    fn mark(&self, marks: Vec<Mark>, few: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<Option<Marked>>>> {
        let write = move |connection: &Connection| {
            let mut small = HashMap::new();
            let one = |each: &Mark| {
                let has_receipts = match small.get(&each.room) {
                    Some(known) => *known,
                    None => *small.entry(each.room).or_insert(has_at_most(connection, each.room, few)?),
                };
                mark(connection, each, has_receipts, now_ms)
            };
            marks.iter().map(one).collect()
        };
        self.database.write(write).boxed()
    }

    fn markers(&self, user: Uuid, rooms: Option<Vec<RoomKey>>) -> BoxFuture<'_, Result<Vec<Marker>>> {
        let read = move |connection: &Connection| {
            let rooms = rooms.map_or_else(|| rooms_of(connection, user), Ok)?;
            rooms.into_iter().filter_map(|room| marker(connection, room, user).transpose()).collect()
        };
        self.database.read(read).boxed()
    }

    fn receipts(
        &self,
        room: RoomKey,
        most: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Vec<Receipt>, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let head = rooms::head(connection, room)?;
            let access = rooms::access(connection, room, &head, readers.users())?;
            let may_read = readers.may_read(&access);
            let receipts = if may_read { receipts(connection, room, &head, most)? } else { Vec::new() };
            Ok((receipts, access))
        };
        self.database.read(read).boxed()
    }

    fn set_notify(&self, (partition, room): RoomKey, user: Uuid, notify: Notify) -> BoxFuture<'_, Result<bool>> {
        let write = move |connection: &Connection| {
            let set = "/* set_notify */ UPDATE room_members SET level = ?4, level_until = ?5
                WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
            let values = params![partition, room.as_bytes(), user.as_bytes(), notify.level as i64, notify.until_ms];
            Ok(connection.prepare_cached(set)?.execute(values)? > 0)
        };
        self.database.write(write).boxed()
    }
}
