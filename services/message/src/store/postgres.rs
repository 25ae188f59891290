//! The log on Postgres.

mod changes;
mod dropping;
mod markers;
mod opening;
mod pages;
mod reactions;
#[cfg(test)]
mod reads;
mod rows;
mod search;

use std::sync::Arc;

use confab_common::{Error, Result, Secret, pg};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    AppendError, Appended, Body, DropStore, Event, EventData, Head, Heads, Kind, LastTimes, Limit, MarkStore, Member,
    Op, Opened, Outcome, Page, ReactionStore, Readers, Refusal, Reopening, RoomAccess, RoomHead, RoomKey, SearchStore,
    Store, Window,
};
use opening::{FINGERPRINT, finish_upgrade, open_or_renew};
use pages::{FIND, LAST_TIMES, LIST_NEWEST_FIRST, LIST_OLDEST_FIRST, READ_LOG, Read, Reads, mark_deleted, read};

refinery::embed_migrations!("migrations/postgres");

pub struct Postgres(pg::Pool);

const APPEND: &str = "/* append */ SELECT * FROM append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const HEADS: &str = "/* heads */ SELECT l.epoch, p.partition, p.head FROM log l, partitions p ORDER BY p.partition";

const ROOM_HEADS: &str =
    "/* room_heads */ SELECT l.epoch, r.room_id, coalesce(h.seq, 0), coalesce(h.closed, false), coalesce(h.messages, 0)
    FROM log l
    LEFT JOIN unnest($1::integer[], $2::uuid[]) WITH ORDINALITY AS r (partition, room_id, n) ON true
    LEFT JOIN room_heads h ON h.partition = r.partition AND h.room_id = r.room_id
    ORDER BY r.n";

const FORGET_FILES: &str = "/* forget_files */ INSERT INTO deleted_files (partition, room_id, file_id)
    SELECT $1, $2, file_id FROM unnest($3::uuid[]) f (file_id) ON CONFLICT DO NOTHING";

const OPEN_ROOM: &str = "/* open_room */ SELECT open_room($1, $2, $3, $4, $5)";

const REOPEN_ROOM: &str = "/* reopen_room */ SELECT reopen_room($1, $2, $3, $4, $5, $6, $7)";

impl Postgres {
    /// Opens the schema, and migrates it if the settings allow it.
    ///
    /// # Errors
    /// When the URL is wrong or a migration fails.
    pub async fn open(url: &Secret, config: &pg::PostgresConfig) -> anyhow::Result<Self> {
        Ok(Self(pg::Pool::open(url, "message", migrations::runner(), config).await?))
    }

    async fn read(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)], partition: u32) -> Result<Read> {
        self.0.run(async |client| read(client, statement, parameters, partition).await).await
    }

    /// Reads a window of a room.
    async fn window(
        &self,
        [oldest_first, newest_first]: [&'static Reads; 2],
        (partition, room): RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> Result<(Page, RoomAccess)> {
        let (above, below, from_the_newest) = window.bounds();
        let statement = if from_the_newest { newest_first } else { oldest_first }.of(&readers);
        let (events, bytes, users) = (i64::from(limit.events), i64::from(limit.bytes), readers.users());
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&(partition as i32), &above, &events, &bytes, &room, &below, &users];
        let read = self.read(statement, &parameters, partition).await?;
        Ok((read.page, read.access))
    }
}

async fn append(client: &pg::Client, batch: &[Arc<EventData>], created_at_ms: i64) -> Result<Appended, AppendError> {
    match batch.first().and_then(|data| data.change) {
        Some(change) if change.op == Op::React => return reactions::append(client, batch, created_at_ms).await,
        Some(_) => return changes::append(client, batch, created_at_ms).await,
        None => {}
    }
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
                &column.of(|data| {
                    data.body.access.as_ref().filter(|change| change.changes_visibility).map(|change| change.private)
                }),
                &grants(batch)?,
            ],
        )
        .await
        .map_err(failed)?;
    if rows.len() != batch.len() {
        return Err(Error::internal(format_args!("{} outcomes of {} events", rows.len(), batch.len())).into());
    }
    let epoch = rows.first().map_or(Uuid::nil(), |row| row.get(0));
    let outcomes =
        rows.iter().zip(batch).map(|(row, data)| outcome(row, data, created_at_ms)).collect::<Result<Vec<_>>>()?;
    complete(client, epoch, outcomes).await
}

/// Completes the outcomes of a committed batch with the present states of messages and files. After a failure here the
/// outcome is unknown to the caller, and the caller repeats the batch.
async fn complete(client: &pg::Client, epoch: Uuid, mut outcomes: Vec<Outcome>) -> Result<Appended, AppendError> {
    changes::give_messages(client, &mut outcomes).await.map_err(|_| Error::timeout())?;
    mark_deleted(client, outcomes.iter_mut().filter_map(Outcome::event_mut)).await.map_err(|_| Error::timeout())?;
    Ok(Appended { epoch, outcomes })
}

fn failed(error: tokio_postgres::Error) -> AppendError {
    match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => AppendError::Locked,
        _ => error.into(),
    }
}

/// The members that the access events of a batch add, change or remove, as `append_batch` reads them.
fn grants(batch: &[Arc<EventData>]) -> Result<Option<String>> {
    let mut grants = Vec::new();
    for (n, change) in (1..).zip(batch).filter_map(|(n, data)| Some((n, data.body.access.as_ref()?))) {
        let grant = |user, role| Grant { n, user_id: user, role };
        grants.extend(change.members.iter().map(|member| grant(member.user, Some(member.role as i16))));
        grants.extend(change.removed.iter().map(|user| grant(*user, None)));
    }
    let text = (!grants.is_empty()).then(|| serde_json::to_string(&grants));
    text.transpose().map_err(Error::internal)
}

/// A user in [`grants`]; without a role, the user is removed.
#[derive(Serialize)]
struct Grant {
    /// The number of the event in the batch, from 1.
    n: usize,
    user_id: Uuid,
    role: Option<i16>,
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
    let numbered = |data, created_at_ms| {
        Event::new(data, row.get::<_, i64>(3) as u64, row.get::<_, i64>(4) as u64, created_at_ms).counted(row.get(9))
    };
    if row.get(1) {
        return Ok(Outcome::Appended(numbered(data.clone(), created_at_ms)));
    }
    if row.get(2) {
        return Ok(Outcome::Hidden);
    }
    let kind = Kind::try_from(i64::from(row.get::<_, i16>(6)))?;
    if kind == Kind::Change {
        return Ok(Outcome::Refused(Refusal::OtherAct));
    }
    let first = EventData {
        id: row.get(5),
        kind,
        body: Body::from_text(row.get(7))?,
        client_id: data.client_id.clone(),
        closes_room: false,
        ..**data
    };
    Ok(Outcome::Repeated(numbered(Arc::new(first), row.get(8))))
}

impl Store for Postgres {
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Opened>> {
        async move { self.0.run(async |client| open_or_renew(client, Some(partitions)).await).await }.boxed()
    }

    fn format(&self) -> BoxFuture<'_, Result<u32>> {
        async {
            let rows = self.0.query("/* format */ SELECT format FROM log", &[]).await?;
            rows.first().map(|row| row.get::<_, i32>(0) as u32).ok_or_else(|| Error::not_found("log"))
        }
        .boxed()
    }

    fn rooms_opened(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let statement = "/* rooms_opened */ UPDATE log SET rooms_opened = true WHERE NOT rooms_opened";
            self.0.execute(statement, &[]).await.map(drop)
        }
        .boxed()
    }

    fn finish_upgrade(&self) -> BoxFuture<'_, Result<()>> {
        self.0.run(async |client| finish_upgrade(client).await).boxed()
    }

    fn is_exclusive(&self) -> bool {
        false
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
        self.0.run(async |client| Ok(open_or_renew(client, None).await?.epoch)).boxed()
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        async move { self.0.run(async |client| append(client, batch, created_at_ms).await).await }.boxed()
    }

    fn list(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        self.window([&LIST_OLDEST_FIRST, &LIST_NEWEST_FIRST], room, window, limit, readers).boxed()
    }

    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        async move {
            let (events, bytes) = (i64::from(limit.events), i64::from(limit.bytes));
            let parameters: [&(dyn ToSql + Sync); 4] = [&(partition as i32), &super::number(after), &events, &bytes];
            Ok(self.read(&READ_LOG, &parameters, partition).await?.page)
        }
        .boxed()
    }

    fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
        async move {
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&(data.partition as i32), &data.room, &data.sender, &data.client_id];
            let page = self.read(&FIND, &parameters, data.partition).await?.page;
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
                    messages: row.get::<_, i64>(4) as u64,
                })
            };
            Ok(Heads { epoch, heads: rows.iter().filter_map(head).collect() })
        }
        .boxed()
    }

    fn last_times(&self, rooms: Vec<(RoomKey, u64)>, until_ms: i64) -> BoxFuture<'_, Result<Vec<LastTimes>>> {
        async move {
            let partitions = rooms.iter().map(|((partition, _), _)| *partition as i32).collect::<Vec<_>>();
            let ids = rooms.iter().map(|((_, room), _)| *room).collect::<Vec<_>>();
            let seqs = rooms.iter().map(|(_, seq)| *seq as i64).collect::<Vec<_>>();
            let rows = self.0.query(LAST_TIMES, &[&partitions, &ids, &seqs, &until_ms]).await?;
            Ok(rows.iter().map(|row| LastTimes { newest: row.get(0), until: row.get(1) }).collect())
        }
        .boxed()
    }

    fn forget_files(&self, (partition, room): RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.0.execute(FORGET_FILES, &[&(partition as i32), &room, &files]).await.map(drop) }.boxed()
    }

    fn drops(&self) -> &dyn DropStore {
        self
    }

    fn marks(&self) -> &dyn MarkStore {
        self
    }

    fn reacting(&self) -> &dyn ReactionStore {
        self
    }

    fn searches(&self) -> &dyn SearchStore {
        self
    }

    fn open_room(&self, (partition, room): RoomKey, private: bool, members: Vec<Member>) -> BoxFuture<'_, Result<()>> {
        async move {
            let (users, roles): (Vec<Uuid>, Vec<i16>) =
                members.into_iter().map(|member| (member.user, member.role as i16)).unzip();
            self.0.query(OPEN_ROOM, &[&(partition as i32), &room, &private, &users, &roles]).await.map(drop)
        }
        .boxed()
    }

    fn reopen_room(&self, (partition, room): RoomKey, again: Reopening) -> BoxFuture<'_, Result<()>> {
        async move {
            let Reopening { epoch, private, members, partial } = again;
            let (users, roles): (Vec<Uuid>, Vec<i16>) =
                members.into_iter().map(|member| (member.user, member.role as i16)).unzip();
            let values: [&(dyn ToSql + Sync); 7] =
                [&(partition as i32), &room, &private, &users, &roles, &epoch, &partial];
            self.0.query(REOPEN_ROOM, &values).await.map(drop)
        }
        .boxed()
    }
}
