//! The files' metadata in Postgres. Every call except `add` is a single statement, and so a transaction in one round
//! trip.

use confab_common::operations::Operations;
use confab_common::pg::{Pool, PostgresConfig};
use confab_common::{Error, Result, Secret};
use futures::future::{BoxFuture, FutureExt};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{File, Forget, Identity, Installation, Of, Position, Store, Upload, User};
use crate::link::LinkKey;
use crate::quota::{Quota, Usage};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

pub struct PostgresStore {
    pool: Pool,
    quota: Quota,
}

impl PostgresStore {
    pub async fn open(url: &Secret, config: &PostgresConfig) -> anyhow::Result<Self> {
        let pool = Pool::open(url, "file", embedded::migrations::runner(), config).await?;
        Ok(Self { pool, quota: Quota::default() })
    }

    /// Sets the quota of each user.
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Inserts the row of a file. Returns `false` when the upload is a repeat. The insert locks the uploader's usage,
    /// so uploads of one user are judged one after the other.
    async fn insert(&self, uploader: Uuid, values: &[&(dyn ToSql + Sync)]) -> Result<bool> {
        let quota = self.quota;
        if quota.is_none() {
            return Ok(self.pool.execute(ADD, values).await? == 1);
        }
        self.pool
            .run(async |client| {
                let transaction = client.transaction().await?;
                let add = transaction.prepare_cached(ADD).await?;
                if transaction.execute(&add, values).await? == 0 {
                    return Ok(false);
                }
                let statement = transaction.prepare_cached(USAGE).await?;
                quota.check(usage(&transaction.query_one(&statement, &[&uploader]).await?))?;
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    async fn query<T>(&self, sql: &str, values: &[&(dyn ToSql + Sync)], row: fn(&Row) -> T) -> Result<Vec<T>> {
        Ok(self.pool.query(sql, values).await?.iter().map(row).collect())
    }

    /// Runs a statement with a list of ids.
    fn each(&self, ids: Vec<Uuid>, sql: &'static str) -> BoxFuture<'_, Result<()>> {
        async move { self.pool.execute(sql, &[&ids]).await.map(drop) }.boxed()
    }

    /// Reads a page of rows ordered by id.
    fn page<T: Send + 'static>(
        &self,
        sql: &'static str,
        after: Uuid,
        limit: u32,
        row: fn(&Row) -> T,
    ) -> BoxFuture<'_, Result<Vec<T>>> {
        async move { self.query(sql, &[&after, &i64::from(limit)], row).await }.boxed()
    }
}

fn id(row: &Row) -> Uuid {
    row.get(0)
}

fn file(row: &Row) -> File {
    File {
        id: row.get(0),
        name: row.get(1),
        size: row.get::<_, i64>(2) as u64,
        content_type: row.get(3),
        sha256: row.get(4),
        safe_inline: row.get(5),
        uploader: User { id: row.get(6), username: row.get(7) },
        created_at_ms: row.get(8),
        link_key: LinkKey::from_bytes(row.get(9)),
        room: row.get(10),
        client_message_id: row.get(11),
        event: row.get(12),
        ready: row.get(13),
    }
}

fn usage(row: &Row) -> Usage {
    let number = |column| row.get::<_, i64>(column) as u64;
    Usage { files: number(0), bytes: number(1), named: number(2) }
}

fn forget(row: &Row) -> Forget {
    Forget { file: row.get(0), room: row.get(1) }
}

/// A query for files.
macro_rules! files {
    ($name:literal, $rest:literal) => {
        concat!(
            "/* ",
            $name,
            " */ SELECT id, name, size, content_type, sha256, safe_inline, uploader_id, uploader_name, created_at_ms, link_key, \
             room_id, client_message_id, event_id, ready FROM files ",
            $rest
        )
    };
}

const ADD: &str = "/* add */
    INSERT INTO files (id, name, size, content_type, sha256, safe_inline, uploader_id, uploader_name, created_at_ms, link_key,
                       room_id, client_message_id, event_id, ready, upload_room)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
    ON CONFLICT (uploader_id, upload_room, client_message_id) DO NOTHING";

const FIRST: &str = files!("first", "WHERE uploader_id = $1 AND upload_room = $2 AND client_message_id = $3");

const USAGE: &str = "/* usage */ SELECT files, bytes, named FROM uploaders WHERE user_id = $1";

const GET: &str = files!("get", "WHERE id = $1");

const LIST_OF_UPLOADER: &str = files!(
    "list",
    "WHERE uploader_id = $1 AND (created_at_ms, id) < ($2, $3) AND ready ORDER BY created_at_ms DESC, id DESC LIMIT $4"
);

const LIST_OF_ROOM: &str = files!(
    "list",
    "WHERE room_id = $1 AND (created_at_ms, id) < ($2, $3) AND ready ORDER BY created_at_ms DESC, id DESC LIMIT $4"
);

// Locked in the order of ids, so that two of these statements cannot deadlock.
const ATTACH: &str = "/* attach */
    WITH fit AS (
        SELECT id FROM files
        WHERE id = ANY($1::uuid[]) AND ready AND (room_id = $2::uuid OR (room_id IS NULL AND uploader_id = $3))
        ORDER BY id FOR UPDATE)
    UPDATE files SET room_id = $2 FROM fit WHERE files.id = fit.id AND (SELECT count(*) FROM fit) = cardinality($1)";

const PENDING: &str = files!("pending", "WHERE NOT ready AND id > $1 ORDER BY id LIMIT $2");

const MARK_READY: &str = "/* settle */ UPDATE files SET ready = TRUE WHERE id = ANY($1)";

const DELETE: &str = "/* delete */
    WITH gone AS (
        DELETE FROM files WHERE id = ANY($1) AND NOT (ready AND $2::boolean)
            AND ($3::uuid IS NULL OR room_id = $3)
        RETURNING id, room_id),
    told AS (
        INSERT INTO forgets (file_id, room_id) SELECT id, room_id FROM gone WHERE room_id IS NOT NULL ON CONFLICT (file_id) DO NOTHING)
    INSERT INTO unwanted_objects (id) SELECT id FROM gone ON CONFLICT (id) DO NOTHING";

// One step in the index per room, however many files the room has.
const ROOMS: &str = "/* rooms */
    WITH RECURSIVE found (id) AS (
        SELECT (SELECT room_id FROM files WHERE room_id > $1 ORDER BY room_id LIMIT 1)
        UNION ALL
        SELECT (SELECT room_id FROM files WHERE room_id > found.id ORDER BY room_id LIMIT 1) FROM found WHERE id IS NOT NULL)
    SELECT id FROM found WHERE id IS NOT NULL LIMIT $2";

const EMPTY: &str = "/* empty */
    WITH gone AS (
        DELETE FROM files WHERE id IN (SELECT id FROM files WHERE room_id = $1 LIMIT $2) RETURNING id)
    INSERT INTO unwanted_objects (id) SELECT id FROM gone ON CONFLICT (id) DO NOTHING";

const KNOWN: &str = "/* known */
    (SELECT id FROM files WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM unwanted_objects WHERE id > $1 ORDER BY id LIMIT $2)
    ORDER BY id LIMIT $2";

const UNWANTED: &str = "/* unwanted */ SELECT id FROM unwanted_objects WHERE id > $1 ORDER BY id LIMIT $2";

const REMOVED: &str = "/* removed */ DELETE FROM unwanted_objects WHERE id = ANY($1)";

const FORGETS: &str = "/* forgets */ SELECT file_id, room_id FROM forgets WHERE file_id > $1 ORDER BY file_id LIMIT $2";

const FORGOTTEN: &str = "/* forgotten */ DELETE FROM forgets WHERE file_id = ANY($1)";

// A failover keeps both values: a promoted replica has its primary's identifier. So does a physical copy.
const INSTALLATION: &str = "/* installation */
    SELECT system_identifier || ':' || d.oid, i.id, i.turn, i.next
    FROM pg_control_system(), pg_database d LEFT JOIN installation i ON i.id <> '' WHERE d.datname = current_database()";

const INSTALL: &str = "/* installation */
    INSERT INTO installation (one, id, turn, next) VALUES (true, $1, $2, $3)
    ON CONFLICT (one) DO UPDATE SET id = excluded.id, turn = excluded.turn, next = excluded.next WHERE installation.id = ''";

const TURN: &str = "/* turn */ UPDATE installation SET turn = next, next = $2 WHERE next = $1";

const RENEW_TURNS: &str = "/* turn */ UPDATE installation SET turn = $1, next = $2";

/// Returns the installation, if it has been created.
fn installation(row: &Row) -> Option<Installation> {
    let id = |column| row.get::<_, Option<&str>>(column).and_then(|text| text.parse().ok());
    match (id(1), id(2), id(3)) {
        (Some(id), Some(turn), Some(next)) => Some(Installation { id, database: row.get(0), turn, next }),
        _ => None,
    }
}

/// How often adding an upload is retried because a conflicting upload was deleted before it could be read.
const TRIES: usize = 3;

impl Store for PostgresStore {
    fn add(&self, new: File) -> BoxFuture<'_, Result<File>> {
        async move {
            let (size, upload_room) = (new.size as i64, new.upload_room());
            let link_key = new.link_key.expose();
            let values: [&(dyn ToSql + Sync); 15] = [
                &new.id,
                &new.name,
                &size,
                &new.content_type,
                &new.sha256,
                &new.safe_inline,
                &new.uploader.id,
                &new.uploader.username,
                &new.created_at_ms,
                &link_key,
                &new.room,
                &new.client_message_id,
                &new.event,
                &new.ready,
                &upload_room,
            ];
            for _ in 0..TRIES {
                if self.insert(new.uploader.id, &values).await? {
                    return Ok(new);
                }
                let first =
                    self.query(FIRST, &[&new.uploader.id, &upload_room, &new.client_message_id], file).await?.pop();
                if let Some(first) = first {
                    return Ok(first);
                }
            }
            Err(Error::unavailable("the upload's name"))
        }
        .boxed()
    }

    fn usage(&self, uploader: Uuid) -> BoxFuture<'_, Result<Usage>> {
        async move { Ok(self.query(USAGE, &[&uploader], usage).await?.pop().unwrap_or_default()) }.boxed()
    }

    fn first(&self, upload: Upload) -> BoxFuture<'_, Result<Option<File>>> {
        async move {
            let Upload { uploader, room, client_message_id } = &upload;
            Ok(self.query(FIRST, &[uploader, &room.unwrap_or_default(), client_message_id], file).await?.pop())
        }
        .boxed()
    }

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<File>>> {
        async move { Ok(self.query(GET, &[&id], file).await?.pop()) }.boxed()
    }

    fn list(&self, of: Of, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<File>>> {
        let (sql, of) = match of {
            Of::Uploader(user) => (LIST_OF_UPLOADER, user),
            Of::Room(room) => (LIST_OF_ROOM, room),
        };
        async move { self.query(sql, &[&of, &below.created_at_ms, &below.id, &i64::from(limit)], file).await }.boxed()
    }

    fn attach(&self, ids: Vec<Uuid>, room: Uuid, uploader: Uuid) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.pool.execute(ATTACH, &[&ids, &room, &uploader]).await? == ids.len() as u64) }.boxed()
    }

    fn pending(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<File>>> {
        self.page(PENDING, after, limit, file)
    }

    fn mark_ready(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, MARK_READY)
    }

    fn abandon(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.pool.execute(DELETE, &[&ids, &true, &None::<Uuid>]).await.map(drop) }.boxed()
    }

    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.pool.execute(DELETE, &[&vec![id], &false, &None::<Uuid>]).await? == 1) }.boxed()
    }

    fn drop_of_room(&self, ids: Vec<Uuid>, room: Uuid) -> BoxFuture<'_, Result<()>> {
        async move { self.pool.execute(DELETE, &[&ids, &false, &Some(room)]).await.map(drop) }.boxed()
    }

    fn operations(&self) -> &dyn Operations {
        &self.pool
    }

    fn rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.page(ROOMS, after, limit, id)
    }

    fn empty(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<u64>> {
        async move { self.pool.execute(EMPTY, &[&room, &i64::from(limit)]).await }.boxed()
    }

    fn known(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.page(KNOWN, after, limit, id)
    }

    fn unwanted(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.page(UNWANTED, after, limit, id)
    }

    fn removed(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, REMOVED)
    }

    fn forgets(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Forget>>> {
        self.page(FORGETS, after, limit, forget)
    }

    fn forgotten(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, FORGOTTEN)
    }
}

impl Identity for PostgresStore {
    fn installation(&self) -> BoxFuture<'_, Result<Installation>> {
        async move {
            for _ in 0..TRIES {
                if let Some(installation) = self.query(INSTALLATION, &[], installation).await?.pop().flatten() {
                    return Ok(installation);
                }
                let new = || Uuid::now_v7().to_string();
                self.pool.execute(INSTALL, &[&new(), &new(), &new()]).await?;
            }
            Err(Error::internal("the database does not identify itself"))
        }
        .boxed()
    }

    fn turn(&self, next: Uuid) -> BoxFuture<'_, Result<()>> {
        async move { self.pool.execute(TURN, &[&next.to_string(), &Uuid::now_v7().to_string()]).await.map(drop) }
            .boxed()
    }

    fn renew_turns(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.pool.execute(RENEW_TURNS, &[&Uuid::now_v7().to_string(), &Uuid::now_v7().to_string()]).await.map(drop)
        }
        .boxed()
    }
}
