//! The log on Postgres.

#[cfg(test)]
mod reads;

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use confab_common::{Error, Result, Secret, pg};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::{
    AppendError, Appended, Body, EVENT_OVERHEAD, Event, EventData, Head, Heads, Kind, Limit, Outcome, Page, RoomHead,
    RoomKey, Store, Window,
};

refinery::embed_migrations!("migrations/postgres");

pub struct Postgres(pg::Pool);

const APPEND: &str = "/* append */ SELECT * FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const HEADS: &str = "/* heads */ SELECT l.epoch, p.partition, p.head FROM log l, partitions p ORDER BY p.partition";

/// Identifies the database. The timeline is taken from the write position, because the control file is updated late in
/// a promotion.
const FINGERPRINT: &str = "/* open_log */ SELECT system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()";

const ROOM_HEADS: &str = "/* room_heads */ SELECT l.epoch, r.room_id, coalesce(h.seq, 0), coalesce(h.closed, false)
    FROM log l
    LEFT JOIN unnest($1::integer[], $2::uuid[]) WITH ORDINALITY AS r (partition, room_id, n) ON true
    LEFT JOIN room_heads h ON h.partition = r.partition AND h.room_id = r.room_id
    ORDER BY r.n";

/// The columns are in the order of the only index that has all of them, which an append also uses.
const FIND: &str = "/* find */
    SELECT l.epoch, 0::bigint, e.position, e.room_id, e.seq, e.kind, e.id, e.sender_id, e.client_id, e.body, e.created_at
    FROM log l LEFT JOIN (
        SELECT * FROM events WHERE (partition, room_id, sender_id, client_id) >= ($1, $2, $3, $4)
        ORDER BY partition, room_id, sender_id, client_id LIMIT 1
    ) e ON e.partition = $1 AND e.room_id = $2 AND e.sender_id = $3 AND e.client_id = $4";

const DELETED: &str = "/* mark_deleted */ SELECT partition, room_id, file_id
    FROM unnest($1, $2, $3) f (partition, room_id, file_id) JOIN deleted_files USING (partition, room_id, file_id)";

const FORGET_FILES: &str = "/* forget_files */ INSERT INTO deleted_files (partition, room_id, file_id)
    SELECT $1, $2, file_id FROM unnest($3::uuid[]) f (file_id) ON CONFLICT DO NOTHING";

static LIST_OLDEST_FIRST: LazyLock<String> = LazyLock::new(|| list("ASC"));
static LIST_NEWEST_FIRST: LazyLock<String> = LazyLock::new(|| list("DESC"));
static READ_LOG: LazyLock<String> = LazyLock::new(|| {
    page_statement(
        "read_log",
        "h.head",
        "partitions h ON h.partition = $1",
        "partition = $1 AND position > $2",
        "position",
        "ASC",
    )
});

fn list(order: &str) -> String {
    let (head, room) = (
        "room_heads h ON h.partition = $1 AND h.room_id = $5",
        "partition = $1 AND room_id = $5 AND seq > $2 AND seq < $6",
    );
    page_statement("list", "h.seq", head, room, "seq", order)
}

/// Builds a statement that reads a head and a page of events in one snapshot. $3 and $4 limit the events and their
/// bytes.
fn page_statement(name: &str, head: &str, heads: &str, filter: &str, by: &str, order: &str) -> String {
    format!(
        "/* {name} */ SELECT l.epoch, coalesce({head}, 0), e.position, e.room_id, e.seq, e.kind, e.id, e.sender_id, e.client_id, e.body, e.created_at
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

impl Postgres {
    /// Opens the schema, and migrates it if the settings allow it.
    ///
    /// # Errors
    /// When the URL is wrong or a migration fails.
    pub async fn open(url: &Secret, config: &pg::PostgresConfig) -> anyhow::Result<Self> {
        Ok(Self(pg::Pool::open(url, "message", migrations::runner(), config).await?))
    }

    async fn page(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)], partition: u32) -> Result<Page> {
        self.0.run(async |client| page(client, statement, parameters, partition).await).await
    }
}

/// Creates, checks or renews the row of the log. `wanted` is the number of partitions; `None` renews the epoch.
async fn open_or_renew(client: &mut pg::Client, wanted: Option<u32>) -> Result<Uuid> {
    let transaction = client.transaction().await?;
    // Replicas that start together take turns; appends continue.
    transaction.batch_execute("/* open_log */ LOCK TABLE log IN EXCLUSIVE MODE").await?;
    let fingerprint: String = transaction.query_one(FINGERPRINT, &[]).await?.get(0);
    let row = transaction.query_opt("/* open_log */ SELECT epoch, fingerprint, partitions FROM log", &[]).await?;
    let epoch = match (row, wanted) {
        (None, None) => return Err(Error::not_found("log")),
        (None, Some(partitions)) => {
            let epoch = super::next_epoch(None);
            let partitions = partitions as i32;
            let create = "/* open_log */ INSERT INTO log (epoch, fingerprint, partitions) VALUES ($1, $2, $3)";
            transaction.execute(create, &[&epoch, &fingerprint, &partitions]).await?;
            let fill = "/* open_log */ INSERT INTO partitions SELECT n, 0 FROM generate_series(0, $1 - 1) n";
            transaction.execute(fill, &[&partitions]).await?;
            epoch
        }
        (Some(row), wanted) => {
            let epoch = row.get(0);
            let renewed = match wanted {
                Some(wanted) => {
                    super::renewed(epoch, (row.get(1), &fingerprint), (row.get::<_, i32>(2).into(), wanted))?
                }
                None => Some(super::next_epoch(Some(epoch))),
            };
            if let Some(epoch) = renewed {
                // Locks every head, so that an append belongs entirely to one epoch.
                let lock = "/* open_log */ SELECT 1 FROM partitions ORDER BY partition FOR UPDATE";
                transaction.query(lock, &[]).await?;
                transaction
                    .execute("/* open_log */ UPDATE log SET epoch = $1, fingerprint = $2", &[&epoch, &fingerprint])
                    .await?;
                tracing::warn!(%epoch, fingerprint, "renewed the log's epoch");
            }
            renewed.unwrap_or(epoch)
        }
    };
    transaction.commit().await?;
    Ok(epoch)
}

async fn append(client: &pg::Client, batch: &[Arc<EventData>], created_at_ms: i64) -> Result<Appended, AppendError> {
    // Preparing changes nothing, so a failure here is not an unknown outcome.
    let statement = pg::prepare(client, APPEND).await.map_err(nothing_done)?;
    let bodies = batch.iter().map(|data| data.body.to_text()).collect::<Result<Vec<_>>>()?;
    let column = Column(batch);
    let rows = client
        .query(
            &statement,
            &[
                &column.of(|data| data.partition as i32),
                &column.of(|data| data.room),
                &column.of(|data| data.kind as i16),
                &column.of(|data| data.id),
                &column.of(|data| data.sender),
                &column.of(|data| data.client_id.as_str()),
                &bodies,
                &column.of(|data| data.closes_room),
                &created_at_ms,
            ],
        )
        .await
        .map_err(|error| match error.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => AppendError::Locked,
            _ => error.into(),
        })?;
    if rows.len() != batch.len() {
        return Err(Error::internal(format_args!("{} outcomes of {} events", rows.len(), batch.len())).into());
    }
    let epoch = rows.first().map_or(Uuid::nil(), |row| row.get(0));
    let mut outcomes =
        rows.iter().zip(batch).map(|(row, data)| outcome(row, data, created_at_ms)).collect::<Result<Vec<_>>>()?;
    // The batch is committed: after a failure here the outcome is unknown to the caller, and the caller repeats the
    // batch.
    mark_deleted(client, outcomes.iter_mut().filter_map(Outcome::event_mut)).await.map_err(|_| Error::timeout())?;
    Ok(Appended { epoch, outcomes })
}

async fn page(
    client: &pg::Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    partition: u32,
) -> Result<Page> {
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
    Ok(Page { epoch, head, events })
}

/// Marks the files of events that have been deleted.
async fn mark_deleted<'a>(client: &Client, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = super::with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let (rooms, files): (Vec<RoomKey>, Vec<Uuid>) = super::files_of(&events).into_iter().unzip();
    let (partitions, rooms): (Vec<i32>, Vec<Uuid>) =
        rooms.into_iter().map(|(partition, room)| (partition as i32, room)).unzip();
    let keys = [(&partitions as _, Type::INT4_ARRAY), (&rooms as _, Type::UUID_ARRAY), (&files as _, Type::UUID_ARRAY)];
    let rows = client.query_typed(DELETED, &keys).await?;
    let deleted =
        rows.iter().map(|row| ((row.get::<_, i32>(0) as u32, row.get(1)), row.get(2))).collect::<HashSet<_>>();
    super::mark_deleted(events, &deleted);
    Ok(())
}

/// Builds the column arrays of a batch.
struct Column<'a>(&'a [Arc<EventData>]);

impl<'a> Column<'a> {
    fn of<T>(&self, field: impl Fn(&'a EventData) -> T) -> Vec<T> {
        self.0.iter().map(|data| field(data)).collect()
    }
}

fn nothing_done(error: tokio_postgres::Error) -> Error {
    pg::note_fault(&error);
    tracing::warn!(%error, "preparing a statement failed");
    Error::unavailable("the database")
}

fn outcome(row: &Row, data: &Arc<EventData>, created_at_ms: i64) -> Result<Outcome> {
    let numbered = |data, created_at_ms| Event {
        data,
        position: row.get::<_, i64>(3) as u64,
        seq: row.get::<_, i64>(4) as u64,
        created_at_ms,
    };
    if row.get(1) {
        return Ok(Outcome::Appended(numbered(data.clone(), created_at_ms)));
    }
    if row.get(2) {
        return Ok(Outcome::Closed);
    }
    let first = EventData {
        id: row.get(5),
        kind: Kind::try_from(i64::from(row.get::<_, i16>(6)))?,
        body: Body::from_text(row.get(7))?,
        client_id: data.client_id.clone(),
        closes_room: false,
        ..**data
    };
    Ok(Outcome::Repeated(numbered(Arc::new(first), row.get(8))))
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

impl Store for Postgres {
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>> {
        async move { self.0.run(async |client| open_or_renew(client, Some(partitions)).await).await }.boxed()
    }

    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>> {
        async {
            let opened = async |client: &mut pg::Client| {
                let fingerprint: String = client.query_one(FINGERPRINT, &[]).await?.get(0);
                let opened = client.query_opt("/* is_as_opened */ SELECT fingerprint FROM log", &[]).await?;
                Ok(opened.is_some_and(|row| row.get::<_, &str>(0) == fingerprint))
            };
            self.0.run(opened).await
        }
        .boxed()
    }

    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>> {
        self.0.run(async |client| open_or_renew(client, None).await).boxed()
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        async move { self.0.run(async |client| append(client, batch, created_at_ms).await).await }.boxed()
    }

    fn list(&self, (partition, room): RoomKey, window: Window, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        async move {
            let (above, below, newest_first) = window.bounds();
            let statement = if newest_first { &LIST_NEWEST_FIRST } else { &LIST_OLDEST_FIRST };
            let (events, bytes) = (i64::from(limit.events), i64::from(limit.bytes));
            self.page(statement, &[&(partition as i32), &above, &events, &bytes, &room, &below], partition).await
        }
        .boxed()
    }

    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        async move {
            let (events, bytes) = (i64::from(limit.events), i64::from(limit.bytes));
            self.page(&READ_LOG, &[&(partition as i32), &super::number(after), &events, &bytes], partition).await
        }
        .boxed()
    }

    fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
        async move {
            let page = self
                .page(FIND, &[&(data.partition as i32), &data.room, &data.sender, &data.client_id], data.partition)
                .await?;
            Ok((page.epoch, page.events.into_iter().next()))
        }
        .boxed()
    }

    fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>> {
        async move {
            let rows = self.0.query(HEADS, &[]).await?;
            let epoch = rows.first().ok_or_else(|| Error::internal("the log has no row"))?.get(0);
            Ok(Heads {
                epoch,
                heads: rows.iter().map(|row| (row.get::<_, i32>(1) as u32, row.get::<_, i64>(2) as u64)).collect(),
            })
        }
        .boxed()
    }

    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>> {
        async move {
            let (partitions, ids): (Vec<i32>, Vec<Uuid>) =
                rooms.into_iter().map(|(partition, room)| (partition as i32, room)).unzip();
            let rows = self.0.query(ROOM_HEADS, &[&partitions, &ids]).await?;
            let epoch = rows.first().ok_or_else(|| Error::internal("the log has no row"))?.get(0);
            let head = |row: &Row| {
                Some(RoomHead {
                    room: row.get::<_, Option<_>>(1)?,
                    seq: row.get::<_, i64>(2) as u64,
                    closed: row.get(3),
                })
            };
            Ok(Heads { epoch, heads: rows.iter().filter_map(head).collect() })
        }
        .boxed()
    }

    fn forget_files(&self, (partition, room): RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.0.execute(FORGET_FILES, &[&(partition as i32), &room, &files]).await.map(drop) }.boxed()
    }
}
