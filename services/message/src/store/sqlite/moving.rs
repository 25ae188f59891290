//! The heads that an append moves, and its events, with their changes of visibility and members.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use confab_common::Result;
use rusqlite::{Connection, params};

use super::judging;
use super::rooms::{self, Head};
use super::rows::INSERT;
use crate::store::{AccessChange, Event, EventData, Kind, RoomKey, number};

/// The heads that an append has read and updates at its end.
#[derive(Default)]
pub struct Moving {
    /// Whether a room must be open.
    pub only_open: bool,
    pub partitions: BTreeMap<u32, i64>,
    /// Rooms, with the number of countable messages before the batch.
    pub rooms: BTreeMap<RoomKey, (i64, Head)>,
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
