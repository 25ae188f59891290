//! Appends events, and applies their changes of visibility and members.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use confab_common::Result;
use rusqlite::{Connection, params};

use super::rooms::{self, Head};
use super::rows::{self, INSERT};
use super::{judging, opening, reactions};
use crate::store::{
    AccessChange, Appended, Event, EventData, FORMAT_WITH_MEMBERS, Kind, Op, Opened, Outcome, RoomKey, number,
    of_earlier,
};

/// The heads that an append has read and updates at its end.
#[derive(Default)]
pub struct Moving {
    /// Whether a room must be open.
    only_open: bool,
    partitions: BTreeMap<u32, i64>,
    /// Rooms, with the number of countable messages before the batch.
    rooms: BTreeMap<RoomKey, (i64, Head)>,
}

pub fn append(connection: &Connection, batch: &[Arc<EventData>], created_at_ms: i64) -> Result<Appended> {
    let Opened { epoch, format } = opening::opened(connection)?;
    let mut moving = Moving { only_open: format >= FORMAT_WITH_MEMBERS, ..Moving::default() };
    let are_reactions = batch.first().and_then(|data| data.change).is_some_and(|change| change.op == Op::React);
    let mut outcomes = if are_reactions {
        reactions::append(connection, batch, created_at_ms, &mut moving)?
    } else {
        let each = batch.iter().map(|data| append_one(connection, data, created_at_ms, &mut moving));
        each.collect::<Result<Vec<_>>>()?
    };
    let mut update = connection.prepare_cached("/* append */ UPDATE partitions SET head = ?2 WHERE partition = ?1")?;
    for (partition, head) in moving.partitions {
        update.execute(params![partition, head])?;
    }
    let mut upsert = connection.prepare_cached(
        "/* append */ INSERT INTO room_heads AS h (partition, room_id, seq, closed, private, messages, counted_from, last_message_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed, private = excluded.private,
            messages = excluded.messages, counted_from = excluded.counted_from,
            last_message_at = coalesce(excluded.last_message_at, h.last_message_at)",
    )?;
    for ((partition, room), (before, head)) in moving.rooms.into_iter().filter(|(_, (_, head))| head.seq > 0) {
        let last_message_at = (head.messages > before).then_some(created_at_ms);
        let values = params![
            partition,
            room.as_bytes(),
            head.seq,
            head.closed,
            head.private,
            head.messages,
            head.counted_from,
            last_message_at
        ];
        upsert.execute(values)?;
    }
    for outcome in &mut outcomes {
        if let Some((room, seq)) = outcome.needed()
            && let Some(message) = rows::message(connection, room, seq)?
        {
            outcome.give(message);
        }
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
        return Ok(of_earlier(first, data));
    }
    if moving.hides(connection, data)? {
        return Ok(Outcome::Hidden);
    }
    if let Some(change) = &data.change
        && let Some(outcome) = judging::judge(connection, data, change)?
    {
        return Ok(outcome);
    }
    insert(connection, data, created_at_ms, moving).map(Outcome::Appended)
}

impl Moving {
    fn room(&mut self, connection: &Connection, key: RoomKey) -> Result<&mut Head> {
        Ok(match self.rooms.entry(key) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => {
                let head = rooms::head(connection, key)?;
                &mut entry.insert((head.messages, head)).1
            }
        })
    }

    /// Whether the room of an event is closed, not open, or hidden from the sender.
    pub fn hides(&mut self, connection: &Connection, data: &EventData) -> Result<bool> {
        let (key, only_open) = ((data.partition, data.room), self.only_open);
        let room = self.room(connection, key)?;
        let is_moderator = data.change.is_some_and(|change| change.moderator);
        let hides_from_sender = room.private && data.kind != Kind::System && !is_moderator;
        Ok(room.closed
            || (only_open && !room.exists)
            || (hides_from_sender && rooms::members(connection, key, &[data.sender])?.is_empty()))
    }
}

/// Appends an event that was judged.
pub fn insert(
    connection: &Connection,
    data: &Arc<EventData>,
    created_at_ms: i64,
    moving: &mut Moving,
) -> Result<Event> {
    let key = (data.partition, data.room);
    let head = match moving.partitions.entry(data.partition) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let read = "/* append */ SELECT head FROM partitions WHERE partition = ?1";
            entry.insert(connection.prepare_cached(read)?.query_row([data.partition], |row| row.get(0))?)
        }
    };
    *head += 1;
    let position = *head;
    let room = moving.room(connection, key)?;
    let ordinal = (data.kind != Kind::Change).then(|| {
        room.counted_from.get_or_insert(room.seq);
        room.messages += i64::from(data.kind.is_countable());
        room.messages
    });
    room.seq += 1;
    room.exists = true;
    room.closed = data.closes_room;
    connection.prepare_cached(INSERT)?.execute(params![
        data.partition,
        position,
        data.room.as_bytes(),
        room.seq,
        data.kind as i64,
        data.id.as_bytes(),
        data.sender.as_bytes(),
        data.client_id,
        data.body.to_text()?,
        created_at_ms,
        data.change.map(|change| number(change.target)),
        data.change.map(|change| change.op as i64),
        ordinal,
    ])?;
    if let Some(change) = &data.change {
        judging::apply(connection, data, change, room.seq, created_at_ms)?;
    }
    if let Some(change) = &data.body.access {
        apply(connection, key, room, change)?;
    }
    Ok(Event::new(data.clone(), position as u64, room.seq as u64, created_at_ms).counted(ordinal))
}

/// Applies a change that holds from the room's newest `seq` on.
fn apply(connection: &Connection, (partition, room): RoomKey, head: &mut Head, change: &AccessChange) -> Result<()> {
    if change.changes_visibility {
        head.private = change.private;
    }
    rooms::grant(connection, (partition, room), &change.members, head.seq, head.messages)?;
    let remove = "/* append */ DELETE FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let mut remove = connection.prepare_cached(remove)?;
    for user in &change.removed {
        remove.execute(params![partition, room.as_bytes(), user.as_bytes()])?;
    }
    Ok(())
}
