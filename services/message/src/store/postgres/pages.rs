//! Pages of rooms and partitions, with the right of their readers.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use confab_common::{Error, Result, pg};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::store::{self, Body, EVENT_OVERHEAD, Event, EventData, Kind, Page, Readers, RoomAccess, RoomKey};

/// The columns of a row with an event: epoch, head, and those of the event.
const EVENT_COLUMNS: usize = 11;

const DELETED: &str = "/* mark_deleted */ SELECT partition, room_id, file_id
    FROM unnest($1, $2, $3) f (partition, room_id, file_id) JOIN deleted_files USING (partition, room_id, file_id)";

/// The right of the readers $7: whether the log has the room, whether it is private, and which of them are its members.
const RIGHT: &str = ", h.room_id IS NOT NULL, coalesce(h.private, false), CASE WHEN h.private THEN
    ARRAY (SELECT m.user_id FROM room_members m WHERE m.partition = $1 AND m.room_id = $5 AND m.user_id = ANY ($7)) END";

/// Whether one of the readers $7 may read the room, for a condition that is decided before any event is read.
const IS_READABLE: &str = "(h.private IS NOT TRUE OR EXISTS (
    SELECT 1 FROM room_members m WHERE m.partition = $1 AND m.room_id = $5 AND m.user_id = ANY ($7)))";

static LIST_OLDEST_FIRST: LazyLock<String> = LazyLock::new(|| list("ASC", IS_READABLE));
static LIST_NEWEST_FIRST: LazyLock<String> = LazyLock::new(|| list("DESC", IS_READABLE));
static LIST_ALL_OLDEST_FIRST: LazyLock<String> = LazyLock::new(|| list("ASC", "true"));
static LIST_ALL_NEWEST_FIRST: LazyLock<String> = LazyLock::new(|| list("DESC", "true"));
pub static READ_LOG: LazyLock<String> = LazyLock::new(|| {
    page_statement(
        "read_log",
        ("h.head", ""),
        "partitions h ON h.partition = $1",
        "partition = $1 AND position > $2",
        "position",
        "ASC",
    )
});

/// Almost all rooms need one look-up. In a room with newer events, a binary search ends after at most 63 more: a client
/// chooses the time, so the events after it must not be scanned.
pub const LAST_TIMES: &str = "/* last_times */
    WITH RECURSIVE asked AS (
        SELECT r.n, r.partition, r.room_id, r.seq, newest.created_at AS newest
        FROM unnest($1::integer[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS r (partition, room_id, seq, n)
        LEFT JOIN LATERAL (
            SELECT e.created_at FROM events e
            WHERE e.partition = r.partition AND e.room_id = r.room_id AND e.seq = r.seq LIMIT 1
        ) newest ON true
    ), bisected (n, partition, room_id, low, high, created_at) AS (
        SELECT n, partition, room_id, 0::bigint, seq, NULL::bigint FROM asked WHERE newest > $4::bigint
        UNION ALL
        SELECT b.n, b.partition, b.room_id,
            CASE WHEN middle.created_at <= $4 THEN middle.seq ELSE b.low END,
            CASE WHEN middle.created_at <= $4 THEN b.high ELSE middle.seq END,
            CASE WHEN middle.created_at <= $4 THEN middle.created_at ELSE b.created_at END
        FROM bisected b CROSS JOIN LATERAL (
            SELECT e.seq, e.created_at FROM events e
            WHERE e.partition = b.partition AND e.room_id = b.room_id AND e.seq = (b.low + b.high) / 2 LIMIT 1
        ) middle
        WHERE b.high - b.low > 1
    ), earlier AS (
        SELECT DISTINCT ON (n) n, created_at FROM bisected ORDER BY n, low DESC
    )
    SELECT asked.newest, CASE WHEN asked.newest <= $4 THEN asked.newest ELSE earlier.created_at END
    FROM asked LEFT JOIN earlier ON earlier.n = asked.n ORDER BY asked.n";

/// Returns the statement that reads a page of a room for these readers.
pub fn list_statement(newest_first: bool, readers: &Readers) -> &'static str {
    match (readers, newest_first) {
        (Readers::Users(_), false) => &LIST_OLDEST_FIRST,
        (Readers::Users(_), true) => &LIST_NEWEST_FIRST,
        (Readers::Moderator, false) => &LIST_ALL_OLDEST_FIRST,
        (Readers::Moderator, true) => &LIST_ALL_NEWEST_FIRST,
    }
}

fn list(order: &str, is_readable: &str) -> String {
    let head = "room_heads h ON h.partition = $1 AND h.room_id = $5";
    let room = format!("partition = $1 AND room_id = $5 AND seq > $2 AND seq < $6 AND {is_readable}");
    page_statement("list", ("h.seq", RIGHT), head, &room, "seq", order)
}

/// Builds a statement that reads a head, with further columns at the end, and a page of events in one snapshot. $3 and
/// $4 limit the events and their bytes.
fn page_statement(name: &str, (head, more): (&str, &str), heads: &str, filter: &str, by: &str, order: &str) -> String {
    format!(
        "/* {name} */ SELECT l.epoch, coalesce({head}, 0), e.position, e.room_id, e.seq, e.kind, e.id, e.sender_id, e.client_id, e.body, e.created_at{more}
        FROM log l LEFT JOIN {heads}
        LEFT JOIN LATERAL (
            SELECT * FROM (
                SELECT *, row_number() OVER w AS n, sum(octet_length(body) + octet_length(client_id) + {EVENT_OVERHEAD}) OVER w AS bytes
                FROM (SELECT * FROM events WHERE {filter} ORDER BY {by} {order} LIMIT $3) page
                WINDOW w AS (ORDER BY {by} {order} ROWS UNBOUNDED PRECEDING)
            ) sized WHERE n = 1 OR bytes <= $4
        ) e ON true ORDER BY e.{by}"
    )
}

pub async fn page(
    client: &pg::Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    partition: u32,
) -> Result<(Page, RoomAccess)> {
    let rows = client.query(&pg::prepare(client, statement).await?, parameters).await?;
    let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
    let (epoch, head) = (first.get(0), first.get::<_, i64>(1) as u64);
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        // A head without events is one row of nulls.
        if let Some(position) = row.get::<_, Option<i64>>(2) {
            events.push(event(row, partition, position)?);
        }
    }
    mark_deleted(client, events.iter_mut()).await?;
    Ok((Page { epoch, head, events }, right(first)))
}

/// Reads the columns of [`RIGHT`], if the statement has them.
fn right(row: &Row) -> RoomAccess {
    let column = EVENT_COLUMNS;
    if row.len() == column {
        return RoomAccess::default();
    }
    let readers = row.get::<_, Option<Vec<Uuid>>>(column + 2).unwrap_or_default();
    RoomAccess { exists: row.get(column), private: row.get(column + 1), readers }
}

/// Marks the files of events that have been deleted.
pub async fn mark_deleted<'a>(client: &Client, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = store::with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let (rooms, files): (Vec<RoomKey>, Vec<Uuid>) = store::files_of(&events).into_iter().unzip();
    let (partitions, rooms): (Vec<i32>, Vec<Uuid>) =
        rooms.into_iter().map(|(partition, room)| (partition as i32, room)).unzip();
    let keys = [(&partitions as _, Type::INT4_ARRAY), (&rooms as _, Type::UUID_ARRAY), (&files as _, Type::UUID_ARRAY)];
    let rows = client.query_typed(DELETED, &keys).await?;
    let deleted =
        rows.iter().map(|row| ((row.get::<_, i32>(0) as u32, row.get(1)), row.get(2))).collect::<HashSet<_>>();
    store::mark_deleted(events, &deleted);
    Ok(())
}

/// Reads the event in a row that begins with epoch, head and position.
fn event(row: &Row, partition: u32, position: i64) -> Result<Event> {
    let data = EventData {
        partition,
        room: row.get(3),
        kind: Kind::try_from(i64::from(row.get::<_, i16>(5)))?,
        id: row.get(6),
        sender: row.get(7),
        client_id: row.get(8),
        body: Body::from_text(row.get(9))?,
        closes_room: false,
    };
    Ok(Event {
        data: Arc::new(data),
        position: position as u64,
        seq: row.get::<_, i64>(4) as u64,
        created_at_ms: row.get(10),
    })
}
