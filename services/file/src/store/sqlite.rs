//! The files' metadata in a SQLite file. Each write is a savepoint in a shared commit.

use std::path::{Path, PathBuf};

use confab_common::operations::Operations;
use confab_common::sqlite::Database;
use confab_common::{Error, Result, identity};
use futures::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::{File, Forget, Identity, Installation, Of, Position, Store, Upload, User};
use crate::link::LinkKey;
use crate::quota::{Quota, Usage};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

pub struct SqliteStore {
    database: Database,
    path: PathBuf,
    quota: Quota,
}

impl SqliteStore {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::open(path, embedded::migrations::runner())?;
        Ok(Self { database, path: path.to_owned(), quota: Quota::default() })
    }

    /// Sets the quota of each user.
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Runs a statement once per id.
    fn each(&self, ids: Vec<Uuid>, sql: &'static str) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            ids.iter().try_for_each(|id| execute(connection, sql, [id.as_bytes()]).map(drop))
        };
        self.database.write(write).boxed()
    }
}

/// Returns the number of rows changed.
fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    Ok(connection.prepare_cached(sql)?.execute(values)?)
}

fn query<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    row: fn(&Row) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    Ok(connection.prepare_cached(sql)?.query_map(values, row)?.collect::<rusqlite::Result<_>>()?)
}

fn id(row: &Row, column: usize) -> rusqlite::Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

fn optional_id(row: &Row, column: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get::<_, Option<_>>(column)?.map(Uuid::from_bytes))
}

fn only_id(row: &Row) -> rusqlite::Result<Uuid> {
    id(row, 0)
}

fn file(row: &Row) -> rusqlite::Result<File> {
    Ok(File {
        id: id(row, 0)?,
        name: row.get(1)?,
        size: row.get::<_, i64>(2)? as u64,
        content_type: row.get(3)?,
        sha256: row.get(4)?,
        safe_inline: row.get(5)?,
        uploader: User { id: id(row, 6)?, username: row.get(7)? },
        created_at_ms: row.get(8)?,
        link_key: LinkKey::from_bytes(row.get(9)?),
        room: optional_id(row, 10)?,
        client_message_id: row.get(11)?,
        event: optional_id(row, 12)?,
        ready: row.get(13)?,
    })
}

fn forget(row: &Row) -> rusqlite::Result<Forget> {
    Ok(Forget { file: id(row, 0)?, room: id(row, 1)? })
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
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT (uploader_id, upload_room, client_message_id) DO NOTHING";

const FIRST: &str = files!("first", "WHERE uploader_id = ?1 AND upload_room = ?2 AND client_message_id = ?3");

const USAGE: &str = "/* usage */ SELECT files, bytes, named FROM uploaders WHERE user_id = ?1";

const GET: &str = files!("get", "WHERE id = ?1");

const LIST_OF_UPLOADER: &str = files!(
    "list",
    "WHERE uploader_id = ?1 AND (created_at_ms, id) < (?2, ?3) AND ready ORDER BY created_at_ms DESC, id DESC LIMIT ?4"
);

const LIST_OF_ROOM: &str = files!(
    "list",
    "WHERE room_id = ?1 AND (created_at_ms, id) < (?2, ?3) AND ready ORDER BY created_at_ms DESC, id DESC LIMIT ?4"
);

const CAN_ATTACH: &str = "/* attach */
    SELECT id FROM files WHERE id = ?1 AND ready AND (room_id = ?2 OR (room_id IS NULL AND uploader_id = ?3))";

const ATTACH: &str = "/* attach */ UPDATE files SET room_id = ?2 WHERE id = ?1";

const PENDING: &str = files!("pending", "WHERE NOT ready AND id > ?1 ORDER BY id LIMIT ?2");

const MARK_READY: &str = "/* settle */ UPDATE files SET ready = TRUE WHERE id = ?1";

// Every deletion of a file first queues the removal of its object and, for a file in a room, a report to the log.
const UNWANT: &str = "/* unwant */ INSERT INTO unwanted_objects (id) VALUES (?1) ON CONFLICT (id) DO NOTHING";

const FORGET: &str = "/* forget */
    INSERT INTO forgets (file_id, room_id) VALUES (?1, ?2) ON CONFLICT (file_id) DO NOTHING";

const DELETE: &str =
    "/* delete */ DELETE FROM files WHERE id = ?1 AND NOT (ready AND ?2) AND (?3 IS NULL OR room_id = ?3)
    RETURNING room_id";

// One step in the index per room, however many files the room has.
const ROOMS: &str = "/* rooms */
    WITH RECURSIVE found (id) AS (
        SELECT (SELECT room_id FROM files WHERE room_id > ?1 ORDER BY room_id LIMIT 1)
        UNION ALL
        SELECT (SELECT room_id FROM files WHERE room_id > found.id ORDER BY room_id LIMIT 1) FROM found WHERE id IS NOT NULL)
    SELECT id FROM found WHERE id IS NOT NULL LIMIT ?2";

const EMPTY: &str = "/* empty */
    DELETE FROM files WHERE id IN (SELECT id FROM files WHERE room_id = ?1 LIMIT ?2) RETURNING id";

const KNOWN: &str = "/* known */
    SELECT id FROM files WHERE id > ?1 UNION SELECT id FROM unwanted_objects WHERE id > ?1 ORDER BY id LIMIT ?2";

const UNWANTED: &str = "/* unwanted */ SELECT id FROM unwanted_objects WHERE id > ?1 ORDER BY id LIMIT ?2";

const REMOVED: &str = "/* removed */ DELETE FROM unwanted_objects WHERE id = ?1";

const FORGETS: &str = "/* forgets */ SELECT file_id, room_id FROM forgets WHERE file_id > ?1 ORDER BY file_id LIMIT ?2";

const FORGOTTEN: &str = "/* forgotten */ DELETE FROM forgets WHERE file_id = ?1";

const INSTALLATION: &str = "/* installation */ SELECT id, turn, next FROM installation";

const INSTALL: &str =
    "/* installation */ INSERT OR REPLACE INTO installation (one, id, turn, next) VALUES (1, ?1, ?2, ?3)";

const TURN: &str = "/* turn */ UPDATE installation SET turn = next, next = ?2 WHERE next = ?1";

const RENEW_TURNS: &str = "/* turn */ UPDATE installation SET turn = ?1, next = ?2";

/// Returns the installation, if it has been created.
fn installed(connection: &Connection) -> Result<Option<[Uuid; 3]>> {
    let ids = |row: &Row| Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?].map(|text| Uuid::try_parse(&text)));
    let row = query(connection, INSTALLATION, [], ids)?.pop();
    Ok(row.and_then(|[id, turn, next]| Some([id.ok()?, turn.ok()?, next.ok()?])))
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

fn add(connection: &Connection, file: &File) -> Result<bool> {
    let values = params![
        file.id.as_bytes(),
        file.name,
        file.size as i64,
        file.content_type,
        file.sha256,
        file.safe_inline,
        file.uploader.id.as_bytes(),
        file.uploader.username,
        file.created_at_ms,
        file.link_key.expose(),
        file.room.as_ref().map(Uuid::as_bytes),
        file.client_message_id,
        file.event.as_ref().map(Uuid::as_bytes),
        file.ready,
        file.upload_room().into_bytes(),
    ];
    Ok(execute(connection, ADD, values)? == 1)
}

fn usage(connection: &Connection, uploader: Uuid) -> Result<Usage> {
    let row = |row: &Row| {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
        Ok(Usage { files: number(0)?, bytes: number(1)?, named: number(2)? })
    };
    Ok(query(connection, USAGE, [uploader.as_bytes()], row)?.pop().unwrap_or_default())
}

/// Returns the earlier upload with the same identity.
fn first(connection: &Connection, upload: &Upload) -> Result<Option<File>> {
    let Upload { uploader, room, client_message_id } = upload;
    let identity = params![uploader.as_bytes(), room.unwrap_or_default().into_bytes(), client_message_id];
    Ok(query(connection, FIRST, identity, file)?.pop())
}

/// Deletes a file, of any room or only of one, and fills the queues. Returns whether the file existed.
fn delete(connection: &Connection, id: Uuid, only_pending: bool, of: Option<Uuid>) -> Result<bool> {
    let values = params![id.as_bytes(), only_pending, of.as_ref().map(Uuid::as_bytes)];
    let gone = query(connection, DELETE, values, |row| optional_id(row, 0))?;
    let Some(room) = gone.first() else { return Ok(false) };
    execute(connection, UNWANT, [id.as_bytes()])?;
    if let Some(room) = room {
        execute(connection, FORGET, [id.as_bytes(), room.as_bytes()])?;
    }
    Ok(true)
}

impl Store for SqliteStore {
    fn add(&self, new: File) -> BoxFuture<'_, Result<File>> {
        let quota = self.quota;
        let write = move |connection: &Connection| {
            if add(connection, &new)? {
                // An error rolls the file back.
                quota.check(usage(connection, new.uploader.id)?)?;
                return Ok(new);
            }
            let identity = params![new.uploader.id.as_bytes(), new.upload_room().into_bytes(), new.client_message_id];
            query(connection, FIRST, identity, file)?
                .pop()
                .ok_or_else(|| Error::internal("the conflicting file is missing"))
        };
        self.database.write(write).boxed()
    }

    fn usage(&self, uploader: Uuid) -> BoxFuture<'_, Result<Usage>> {
        self.database.read(move |connection| usage(connection, uploader)).boxed()
    }

    fn first(&self, upload: Upload) -> BoxFuture<'_, Result<Option<File>>> {
        self.database.read(move |connection| first(connection, &upload)).boxed()
    }

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<File>>> {
        self.database.read(move |connection| Ok(query(connection, GET, [id.as_bytes()], file)?.pop())).boxed()
    }

    fn list(&self, of: Of, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<File>>> {
        let (sql, of) = match of {
            Of::Uploader(user) => (LIST_OF_UPLOADER, user),
            Of::Room(room) => (LIST_OF_ROOM, room),
        };
        let Position { created_at_ms, id } = below;
        self.database
            .read(move |connection| {
                query(connection, sql, params![of.as_bytes(), created_at_ms, id.as_bytes(), limit], file)
            })
            .boxed()
    }

    fn attach(&self, ids: Vec<Uuid>, room: Uuid, uploader: Uuid) -> BoxFuture<'_, Result<bool>> {
        let write = move |connection: &Connection| {
            for id in &ids {
                if query(connection, CAN_ATTACH, [id.as_bytes(), room.as_bytes(), uploader.as_bytes()], only_id)?
                    .is_empty()
                {
                    return Ok(false);
                }
            }
            for id in &ids {
                execute(connection, ATTACH, [id.as_bytes(), room.as_bytes()])?;
            }
            Ok(true)
        };
        self.database.write(write).boxed()
    }

    fn pending(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<File>>> {
        self.database.read(move |connection| query(connection, PENDING, params![after.as_bytes(), limit], file)).boxed()
    }

    fn mark_ready(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, MARK_READY)
    }

    fn abandon(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        let write =
            move |connection: &Connection| ids.iter().try_for_each(|id| delete(connection, *id, true, None).map(drop));
        self.database.write(write).boxed()
    }

    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        self.database.write(move |connection| delete(connection, id, false, None)).boxed()
    }

    fn drop_of_room(&self, ids: Vec<Uuid>, room: Uuid) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            ids.iter().try_for_each(|id| delete(connection, *id, false, Some(room)).map(drop))
        };
        self.database.write(write).boxed()
    }

    fn operations(&self) -> &dyn Operations {
        &self.database
    }

    fn rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.database
            .read(move |connection| query(connection, ROOMS, params![after.as_bytes(), limit], only_id))
            .boxed()
    }

    fn empty(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<u64>> {
        let write = move |connection: &Connection| {
            let gone = query(connection, EMPTY, params![room.as_bytes(), limit], only_id)?;
            gone.iter().try_for_each(|id| execute(connection, UNWANT, [id.as_bytes()]).map(drop))?;
            Ok(gone.len() as u64)
        };
        self.database.write(write).boxed()
    }

    fn known(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.database
            .read(move |connection| query(connection, KNOWN, params![after.as_bytes(), limit], only_id))
            .boxed()
    }

    fn unwanted(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.database
            .read(move |connection| query(connection, UNWANTED, params![after.as_bytes(), limit], only_id))
            .boxed()
    }

    fn removed(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, REMOVED)
    }

    fn forgets(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Forget>>> {
        self.database
            .read(move |connection| query(connection, FORGETS, params![after.as_bytes(), limit], forget))
            .boxed()
    }

    fn forgotten(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        self.each(ids, FORGOTTEN)
    }
}

impl Identity for SqliteStore {
    fn installation(&self) -> BoxFuture<'_, Result<Installation>> {
        async move {
            let database =
                std::fs::metadata(&self.path).map(|metadata| identity::of_file(&metadata)).map_err(Error::internal)?;
            let mut found = self.database.read(installed).await?;
            if found.is_none() {
                let install = |connection: &Connection| {
                    if installed(connection)?.is_none() {
                        execute(connection, INSTALL, [new_id(), new_id(), new_id()])?;
                    }
                    installed(connection)
                };
                found = self.database.write(install).await?;
            }
            let [id, turn, next] = found.ok_or_else(|| Error::internal("no installation"))?;
            Ok(Installation { id, database, turn, next })
        }
        .boxed()
    }

    fn turn(&self, next: Uuid) -> BoxFuture<'_, Result<()>> {
        self.database.write(move |connection| execute(connection, TURN, [next.to_string(), new_id()]).map(drop)).boxed()
    }

    fn renew_turns(&self) -> BoxFuture<'_, Result<()>> {
        self.database.write(|connection| execute(connection, RENEW_TURNS, [new_id(), new_id()]).map(drop)).boxed()
    }
}
