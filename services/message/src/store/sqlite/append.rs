//! Appends batches.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use confab_common::Result;
use rusqlite::{Connection, params};

use super::moving::{Moving, insert};
use super::{judging, opening, reactions, rows};
use crate::store::{Appended, Event, EventData, FORMAT_WITH_MEMBERS, Op, Opened, Outcome, of_earlier};

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
    // The reactions to a message share it.
    let mut messages = BTreeMap::new();
    for outcome in &mut outcomes {
        let Some((room, seq)) = outcome.needed() else { continue };
        let message = match messages.entry((room, seq)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(rows::message(connection, room, seq)?),
        };
        if let Some(message) = message {
            outcome.give(message.clone());
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
    if let Some(change) = &data.change {
        if let Some(outcome) = judging::judge(connection, data, change)? {
            return Ok(outcome);
        }
        if change.keeps_text {
            let with_text = judging::with_text(connection, data, change)?;
            let event = insert(connection, &with_text, created_at_ms, moving)?;
            return Ok(Outcome::Appended(Event { data: data.clone(), ..event }));
        }
    }
    insert(connection, data, created_at_ms, moving).map(Outcome::Appended)
}
