//! The rows of events, with their states and the messages of changes.

use std::sync::Arc;

use confab_common::{Error, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::store::{Body, Change, EVENT_OVERHEAD, Event, EventData, Kind, Op, Reaction, STATE_OVERHEAD, State};

/// The first column of an event, after the epoch and the head.
pub const FIRST: usize = 2;
/// The number of [`columns`].
pub const COUNT: usize = EVENT.len() + STATE.len() + OF_MESSAGE.len();

/// The columns in the order in which [`event`], [`fold`] and [`message`] read them.
const EVENT: [&str; 12] = [
    "position",
    "room_id",
    "seq",
    "kind",
    "id",
    "sender_id",
    "client_id",
    "body",
    "created_at",
    "target",
    "op",
    "ordinal",
];
const STATE: [&str; 8] =
    ["revision", "content", "edited_at", "deleted_by", "deleted_by_name", "pinned", "reactions", "data"];
const OF_MESSAGE: [&str; 8] =
    ["m_position", "m_kind", "m_id", "m_sender_id", "m_client_id", "m_body", "m_created_at", "m_ordinal"];

/// Returns a subquery for the row of a table with this key of a partition, a room and a `seq`. Sought in the order of
/// the key, whatever the planner expects: by equality alone, a plan that is made while the table is small scans the
/// table.
pub fn one(table: &str, partition: &str, room: &str, seq: &str) -> String {
    format!(
        "SELECT * FROM (
            SELECT * FROM {table} k WHERE (k.partition, k.room_id, k.seq) >= ({partition}, {room}, {seq})
            ORDER BY k.partition, k.room_id, k.seq LIMIT 1
        ) f WHERE f.partition = {partition} AND f.room_id = {room} AND f.seq = {seq}"
    )
}

/// Returns the join of the state `s` of an event `p`: its own, or that of the message that it changes.
pub fn state_of() -> String {
    format!(
        "LEFT JOIN LATERAL ({}) s ON true",
        one("message_state", "p.partition", "p.room_id", "coalesce(p.target, p.seq)")
    )
}

/// Returns the join of the message `m` of a change `p`.
pub fn message_of() -> String {
    let message = one("events", "p.partition", "p.room_id", "coalesce(p.target, 0)");
    format!("LEFT JOIN LATERAL ({message} AND p.target IS NOT NULL) m ON true")
}

/// The columns of a state `s`.
pub const STATE_COLUMNS: &str =
    "s.revision, s.content, s.edited_at, s.deleted_by, s.deleted_by_name, s.pinned, s.reactions, s.data";
/// The columns of the message `m` of a change.
pub const MESSAGE: &str = "m.position AS m_position, m.kind AS m_kind, m.id AS m_id, m.sender_id AS m_sender_id,
    m.client_id AS m_client_id, m.body AS m_body, m.created_at AS m_created_at, m.ordinal AS m_ordinal";
/// The columns of a read without the messages of changes.
pub const NO_MESSAGE: &str = "NULL::bigint AS m_position, NULL::smallint AS m_kind, NULL::uuid AS m_id,
    NULL::uuid AS m_sender_id, NULL::text AS m_client_id, NULL::text AS m_body, NULL::bigint AS m_created_at,
    NULL::bigint AS m_ordinal";

/// Returns the encoded size of a row, in bytes.
pub fn size() -> String {
    format!(
        "octet_length(body) + octet_length(client_id) + {EVENT_OVERHEAD}
        + CASE WHEN revision IS NULL THEN 0
            ELSE {STATE_OVERHEAD} + coalesce(octet_length(content), 0) + coalesce(octet_length(deleted_by_name), 0)
                + coalesce(octet_length(reactions), 0) + coalesce(octet_length(data), 0) END
        + CASE WHEN m_position IS NULL THEN 0
            ELSE {EVENT_OVERHEAD} + octet_length(m_body) + octet_length(m_client_id) END"
    )
}

/// Returns the columns of the rows `e`.
pub fn columns() -> String {
    let names = EVENT.iter().chain(&STATE).chain(&OF_MESSAGE);
    names.map(|name| format!("e.{name}")).collect::<Vec<_>>().join(", ")
}

/// Reads the event in a row, if there is one: a message in its present state, or a change with its message if the row
/// has the message.
pub fn event(row: &Row, partition: u32) -> Result<Option<Event>> {
    let Some(position) = row.get::<_, Option<i64>>(FIRST) else { return Ok(None) };
    let target = row.get::<_, Option<i64>>(FIRST + 9).zip(row.get::<_, Option<i16>>(FIRST + 10));
    let change = target.map(|(target, op)| Ok::<_, Error>(Change::new(target as u64, Op::try_from(i64::from(op))?)));
    let data = EventData {
        partition,
        room: row.get(FIRST + 1),
        kind: Kind::try_from(i64::from(row.get::<_, i16>(FIRST + 3)))?,
        id: row.get(FIRST + 4),
        sender: row.get(FIRST + 5),
        client_id: row.get(FIRST + 6),
        body: Body::from_text(row.get(FIRST + 7))?,
        change: change.transpose()?,
        closes_room: false,
    };
    let seq = row.get::<_, i64>(FIRST + 2) as u64;
    let mut event = Event::new(Arc::new(data), position as u64, seq, row.get(FIRST + 8)).counted(row.get(FIRST + 11));
    match event.data.change {
        Some(change) => {
            if let Some(mut message) = message(row, &event.data, change.target)? {
                fold(row, &mut message)?;
                event.give_message(message);
            }
        }
        None => fold(row, &mut event)?,
    }
    Ok(Some(event))
}

/// Reads the message of a change.
fn message(row: &Row, change: &EventData, seq: u64) -> Result<Option<Event>> {
    let first = FIRST + EVENT.len() + STATE.len();
    let Some(position) = row.get::<_, Option<i64>>(first) else { return Ok(None) };
    let data = EventData {
        partition: change.partition,
        room: change.room,
        kind: Kind::try_from(i64::from(row.get::<_, i16>(first + 1)))?,
        id: row.get(first + 2),
        sender: row.get(first + 3),
        client_id: row.get(first + 4),
        body: Body::from_text(row.get(first + 5))?,
        change: None,
        closes_room: false,
    };
    Ok(Some(Event::new(Arc::new(data), position as u64, seq, row.get(first + 6)).counted(row.get(first + 7))))
}

/// Gives a message the state in its row, if it was changed.
fn fold(row: &Row, message: &mut Event) -> Result<()> {
    let first = FIRST + EVENT.len();
    let Some(revision) = row.get::<_, Option<i64>>(first) else { return Ok(()) };
    let state = State {
        revision: revision as u64,
        edited_at_ms: row.get(first + 2),
        deleted_by: row.get::<_, Option<Uuid>>(first + 3).zip(row.get(first + 4)),
        pinned: row.get::<_, Option<i64>>(first + 5).is_some(),
        reactions: Reaction::list(row.get(first + 6))?,
    };
    message.fold(state, row.get(first + 1), row.get(first + 7));
    Ok(())
}
