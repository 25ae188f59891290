//! Pages of rooms and partitions, with the right of their readers. A statement reads events together with their states
//! and, for changes, their messages, in one snapshot.

use std::collections::HashSet;
use std::sync::{LazyLock, OnceLock};

use confab_common::{Error, Result, pg};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::rows::{self, MESSAGE, NO_MESSAGE, STATE_COLUMNS, message_of, state_of};
use crate::store::outcome;
use crate::store::{Changed, Event, Page, Readers, RoomAccess, RoomKey};

const DELETED: &str = "/* mark_deleted */ SELECT partition, room_id, file_id
    FROM unnest($1, $2, $3) f (partition, room_id, file_id) JOIN deleted_files USING (partition, room_id, file_id)";

/// The head of the room $5 in the partition $1.
pub const ROOM: &str = "room_heads h ON h.partition = $1 AND h.room_id = $5";

/// Whether the log has the room, whether it is private, and which of the readers $7 are its members.
pub const RIGHT: &str = "h.room_id IS NOT NULL, coalesce(h.private, false), CASE WHEN h.private THEN
    ARRAY (SELECT m.user_id FROM room_members m WHERE m.partition = $1 AND m.room_id = $5 AND m.user_id = ANY ($7)) END";

/// The newest event of the room that is no change.
const LAST_ITEM: &str = "coalesce((
        SELECT CASE WHEN r.last_seq >= h.seq THEN r.first_seq - 1 END FROM (
            SELECT first_seq, last_seq FROM change_runs WHERE partition = $1 AND room_id = $5
            ORDER BY partition DESC, room_id DESC, first_seq DESC LIMIT 1
        ) r
    ), h.seq, 0)";

/// Whether one of the readers $7 may read the room, for a condition that is decided before any event is read.
pub fn is_readable(readers: &Readers) -> &'static str {
    match readers {
        Readers::Users(_) => {
            "(h.private IS NOT TRUE OR EXISTS (
                SELECT 1 FROM room_members m WHERE m.partition = $1 AND m.room_id = $5 AND m.user_id = ANY ($7)))"
        }
        Readers::Moderator => "true",
    }
}

/// The statements of one kind of read: for users and for moderators.
pub struct Reads {
    build: fn(&Readers) -> String,
    users: OnceLock<String>,
    moderators: OnceLock<String>,
}

impl Reads {
    pub const fn new(build: fn(&Readers) -> String) -> Self {
        Self { build, users: OnceLock::new(), moderators: OnceLock::new() }
    }

    pub fn of(&self, readers: &Readers) -> &str {
        let built = match readers {
            Readers::Users(_) => &self.users,
            Readers::Moderator => &self.moderators,
        };
        built.get_or_init(|| (self.build)(readers))
    }
}

pub static LIST_OLDEST_FIRST: Reads = Reads::new(|readers| list(readers, "ASC"));
pub static LIST_NEWEST_FIRST: Reads = Reads::new(|readers| list(readers, "DESC"));
pub static EVENTS_OLDEST_FIRST: Reads = Reads::new(|readers| events(readers, "ASC"));
pub static EVENTS_NEWEST_FIRST: Reads = Reads::new(|readers| events(readers, "DESC"));

pub static READ_LOG: LazyLock<String> = LazyLock::new(|| {
    let rows = format!(
        "SELECT 0 AS part, p.position AS rank, p.*, {STATE_COLUMNS}, {MESSAGE}
        FROM (SELECT * FROM events WHERE partition = $1 AND position > $2 ORDER BY position LIMIT $3) p
        {} {}",
        state_of(),
        message_of()
    );
    statement(
        "read_log",
        ("h.head", ", coalesce(h.head, 0)"),
        "partitions h ON h.partition = $1",
        &rows,
        "ASC",
        ("$3", "$4"),
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

/// The columns are in the order of the only index that has all of them, which an append also uses.
pub static FIND: LazyLock<String> = LazyLock::new(|| {
    let rows = format!(
        "SELECT 0 AS part, p.seq AS rank, p.*, {STATE_COLUMNS}, {MESSAGE}
        FROM (
            SELECT * FROM (
                SELECT * FROM events WHERE (partition, room_id, sender_id, client_id) >= ($1, $2, $3, $4)
                ORDER BY partition, room_id, sender_id, client_id LIMIT 1
            ) f WHERE f.partition = $1 AND f.room_id = $2 AND f.sender_id = $3 AND f.client_id = $4
        ) p {} {}",
        state_of(),
        message_of()
    );
    statement("find", ("0::bigint", ", 0::bigint"), "(SELECT 0) h ON true", &rows, "ASC", ("1", "0"))
});

/// The rows of a page of events without changes: above $2, below $6, at most $3.
pub fn items(readers: &Readers, order: &str) -> String {
    let (is_readable, newest_first) = (is_readable(readers), order == "DESC");
    format!(
        "SELECT 0 AS part, p.seq AS rank, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
        FROM (
            SELECT i.* FROM item_ranges(
                $1, $5, least($2::bigint, coalesce(h.seq, 0)), least($6::bigint, coalesce(h.seq, 0) + 1),
                CASE WHEN {is_readable} THEN $3::bigint ELSE 0 END, {newest_first}
            ) r CROSS JOIN LATERAL (
                SELECT * FROM events WHERE partition = $1 AND room_id = $5 AND seq > r.low AND seq < r.high
                ORDER BY seq {order} LIMIT r.high - r.low - 1
            ) i
        ) p {}",
        state_of()
    )
}

fn list(readers: &Readers, order: &str) -> String {
    let more = format!(", {LAST_ITEM}, {RIGHT}, coalesce(h.messages, 0)");
    statement("list", ("h.seq", &more), ROOM, &items(readers, order), order, ("$3", "$4"))
}

fn events(readers: &Readers, order: &str) -> String {
    let is_readable = is_readable(readers);
    let rows = format!(
        "SELECT 0 AS part, p.seq AS rank, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
        FROM (
            SELECT * FROM events
            WHERE partition = $1 AND room_id = $5 AND seq > $2 AND seq < $6 AND {is_readable}
            ORDER BY seq {order} LIMIT $3
        ) p {}",
        state_of()
    );
    let more = format!(", coalesce(h.seq, 0), {RIGHT}, coalesce(h.messages, 0)");
    statement("read_events", ("h.seq", &more), ROOM, &rows, order, ("$3", "$4"))
}

/// Builds a statement that reads a room and rows of its events, at most `most` and $4 bytes.
pub fn of_room(name: &str, rows: &str, most: &str) -> String {
    let more = format!(", {LAST_ITEM}, {RIGHT}, coalesce(h.messages, 0)");
    statement(name, ("h.seq", &more), ROOM, rows, "ASC", (most, "$4"))
}

/// Builds a statement that reads a head, with further columns at the end, and rows of events in the order of their part
/// and rank. It returns at most `most` rows and `bytes` bytes, but at least one row.
fn statement(
    name: &str,
    (head, more): (&str, &str),
    heads: &str,
    rows: &str,
    order: &str,
    (most, bytes): (&str, &str),
) -> String {
    let (columns, size) = (rows::columns(), rows::size());
    format!(
        "/* {name} */ SELECT l.epoch, coalesce({head}, 0), {columns}, e.part, e.parts{more}
        FROM log l LEFT JOIN {heads}
        LEFT JOIN LATERAL (
            SELECT * FROM (
                SELECT *, row_number() OVER w AS n, sum({size}) OVER w AS bytes, sum(part) OVER () AS parts
                FROM ({rows}) folded
                WINDOW w AS (ORDER BY part, rank {order} ROWS UNBOUNDED PRECEDING)
            ) sized WHERE n = 1 OR (n <= {most} AND bytes <= {bytes})
        ) e ON true ORDER BY e.part, e.rank"
    )
}

/// What a statement has read.
pub struct Read {
    pub page: Page,
    pub changed: Changed,
    pub access: RoomAccess,
}

pub async fn read(
    client: &pg::Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    partition: u32,
) -> Result<Read> {
    let rows = client.query(&pg::prepare(client, statement).await?, parameters).await?;
    let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
    let (epoch, head) = (first.get(0), first.get::<_, i64>(1) as u64);
    let (part, further) = (rows::FIRST + rows::COUNT, rows::FIRST + rows::COUNT + 2);
    let (mut events, mut changed) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        // A head without events is one row of nulls.
        if let Some(event) = rows::event(row, partition)? {
            let list = if row.get::<_, Option<i32>>(part) == Some(1) { &mut changed } else { &mut events };
            list.push(event);
        }
    }
    mark_deleted(client, events.iter_mut().chain(changed.iter_mut())).await?;
    let found = first.get::<_, Option<i64>>(part + 1).unwrap_or_default() as usize;
    let changed = Changed { more: changed.len() < found, messages: changed };
    let last = first.get::<_, i64>(further) as u64;
    let messages = if first.len() > further + 4 { first.get::<_, i64>(further + 4) as u64 } else { 0 };
    let page = Page { epoch, head, last, messages, events };
    Ok(Read { page, changed, access: right(first, further + 1) })
}

/// Reads the columns of [`RIGHT`], if the statement has them.
pub fn right(row: &Row, column: usize) -> RoomAccess {
    if row.len() <= column {
        return RoomAccess::default();
    }
    let readers = row.get::<_, Option<Vec<Uuid>>>(column + 2).unwrap_or_default();
    RoomAccess { exists: row.get(column), private: row.get(column + 1), readers }
}

/// Marks the files of events that have been deleted.
pub async fn mark_deleted<'a>(client: &Client, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = outcome::with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let (rooms, files): (Vec<RoomKey>, Vec<Uuid>) = outcome::files_of(&events).into_iter().unzip();
    let (partitions, rooms): (Vec<i32>, Vec<Uuid>) =
        rooms.into_iter().map(|(partition, room)| (partition as i32, room)).unzip();
    let keys = [(&partitions as _, Type::INT4_ARRAY), (&rooms as _, Type::UUID_ARRAY), (&files as _, Type::UUID_ARRAY)];
    let rows = client.query_typed(DELETED, &keys).await?;
    let deleted =
        rows.iter().map(|row| ((row.get::<_, i32>(0) as u32, row.get(1)), row.get(2))).collect::<HashSet<_>>();
    outcome::mark_deleted(events, &deleted);
    Ok(())
}
