//! Appends events, and applies their changes of visibility and members.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use confab_common::Result;
use rusqlite::{Connection, params};

use super::opening;
use super::rooms::{self, Head};
use super::rows::{self, INSERT};
use crate::store::{AccessChange, Appended, Event, EventData, FORMAT, Kind, Opened, Outcome, RoomKey};

/// The heads that an append has read and updates at its end.
#[derive(Default)]
struct Moving {
    /// Whether a room must be open.
    only_open: bool,
    partitions: BTreeMap<u32, i64>,
    rooms: BTreeMap<RoomKey, Head>,
}

pub fn append(connection: &Connection, batch: &[Arc<EventData>], created_at_ms: i64) -> Result<Appended> {
    let Opened { epoch, format } = opening::opened(connection)?;
    let mut moving = Moving { only_open: format >= FORMAT, ..Moving::default() };
    let mut outcomes = batch
        .iter()
        .map(|data| append_one(connection, data, created_at_ms, &mut moving))
        .collect::<Result<Vec<_>>>()?;
    let mut update = connection.prepare_cached("/* append */ UPDATE partitions SET head = ?2 WHERE partition = ?1")?;
    for (partition, head) in moving.partitions {
        update.execute(params![partition, head])?;
    }
    let mut upsert = connection.prepare_cached(
        "/* append */ INSERT INTO room_heads (partition, room_id, seq, closed, private) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed, private = excluded.private",
    )?;
    for ((partition, room), head) in moving.rooms.into_iter().filter(|(_, head)| head.seq > 0) {
        upsert.execute(params![partition, room.as_bytes(), head.seq, head.closed, head.private])?;
    }
    rows::mark_deleted(connection, outcomes.iter_mut().filter_map(Outcome::event_mut))?;
    Ok(Appended { epoch, outcomes })
}

fn append_one(
    connection: &Connection,
    data: &Arc<EventData>,
    created_at_ms: i64,
    moving: &mut Moving,
) -> Result<Outcome> {
    if let Some(first) = rows::find(connection, data)? {
        return Ok(Outcome::Repeated(first));
    }
    let key = (data.partition, data.room);
    let room = match moving.rooms.entry(key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(rooms::head(connection, key)?),
    };
    let hides_from_sender = room.private && data.kind != Kind::System;
    if room.closed
        || (moving.only_open && !room.exists)
        || (hides_from_sender && rooms::members(connection, key, &[data.sender])?.is_empty())
    {
        return Ok(Outcome::Hidden);
    }
    let head = match moving.partitions.entry(data.partition) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let read = "/* append */ SELECT head FROM partitions WHERE partition = ?1";
            entry.insert(connection.prepare_cached(read)?.query_row([data.partition], |row| row.get(0))?)
        }
    };
    *head += 1;
    room.seq += 1;
    room.exists = true;
    room.closed = data.closes_room;
    connection.prepare_cached(INSERT)?.execute(params![
        data.partition,
        *head,
        data.room.as_bytes(),
        room.seq,
        data.kind as i64,
        data.id.as_bytes(),
        data.sender.as_bytes(),
        data.client_id,
        data.body.to_text()?,
        created_at_ms
    ])?;
    if let Some(change) = &data.body.access {
        apply(connection, key, room, change)?;
    }
    Ok(Outcome::Appended(Event { data: data.clone(), position: *head as u64, seq: room.seq as u64, created_at_ms }))
}

/// Applies a change that holds from the room's newest `seq` on.
fn apply(connection: &Connection, (partition, room): RoomKey, head: &mut Head, change: &AccessChange) -> Result<()> {
    if change.changes_visibility {
        head.private = change.private;
    }
    rooms::grant(connection, (partition, room), &change.members, head.seq)?;
    let remove = "/* append */ DELETE FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let mut remove = connection.prepare_cached(remove)?;
    for user in &change.removed {
        remove.execute(params![partition, room.as_bytes(), user.as_bytes()])?;
    }
    Ok(())
}
