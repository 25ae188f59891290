//! Rooms in a SQLite file. Each write is a savepoint in a shared commit.

mod acquaintances;
mod members;
mod outbox;

use std::path::Path;

use confab_common::sqlite::{Database, Readers, is_unique_violation};
use confab_common::transfer::hex;
use confab_common::{Code, Error, Result};
use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::{
    Joining, Position, Role, Room, RoomEvent, RoomStore, SEARCH_BOUNDS, SearchBounds, Seen, Stored, User,
    added_to_too_many_rooms, name_taken, newest_first, pieces, search_took_too_long, share_of_others, too_many_rooms,
};
use outbox::owe;

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Concurrent searches.
const SEARCHES: usize = 2;

pub struct SqliteStore {
    database: Database,
    /// Readers for searches only, so that other reads do not wait for searches.
    pub(super) searchers: Readers,
    pub(super) bounds: SearchBounds,
    max_rooms: u32,
}

impl SqliteStore {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::open(path, embedded::migrations::runner())?;
        let searchers = database.readers().apart(SEARCHES);
        Ok(Self { database, searchers, bounds: SEARCH_BOUNDS, max_rooms: 0 })
    }

    /// Sets the maximum number of rooms of one user; 0 means no limit.
    pub fn with_max_rooms(self, max_rooms: u32) -> Self {
        Self { max_rooms, ..self }
    }
}

/// Returns the number of rows changed.
fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    connection.prepare_cached(sql)?.execute(values).map_err(named)
}

fn named(error: rusqlite::Error) -> Error {
    // Ids are never reused, so only a name can collide.
    if is_unique_violation(&error) { name_taken() } else { error.into() }
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

const COUNT: &str = "/* count */
    SELECT count(*), count(added_by) FROM (SELECT added_by FROM members WHERE user_id = ?1 LIMIT ?2)";

/// Rejects a further room of a user who is in the maximum number of rooms; 0 means no limit. If another user adds the
/// user, also rejects it if other users have added the user to half as many.
fn check_place(connection: &Connection, Joining { user, added_by }: Joining, max_rooms: u32) -> Result<()> {
    if max_rooms == 0 {
        return Ok(());
    }
    let mut count = connection.prepare_cached(COUNT)?;
    let counts = |row: &Row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?));
    let (rooms, added) = count.query_row(params![user.as_bytes(), max_rooms], counts)?;
    if rooms >= max_rooms {
        return Err(too_many_rooms(max_rooms));
    }
    let is_full = added_by.is_some() && added >= share_of_others(max_rooms);
    if is_full { Err(added_to_too_many_rooms(max_rooms)) } else { Ok(()) }
}

/// Converts the id of a reader to a parameter; no row has the id NULL of an anonymous reader.
fn parameter(user: Option<Uuid>) -> Option<[u8; 16]> {
    user.map(Uuid::into_bytes)
}

fn room(row: &Row) -> rusqlite::Result<Room> {
    Ok(Room {
        id: id(row, 0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        creator: User { id: id(row, 3)?, username: row.get(4)? },
        created_at_ms: row.get(5)?,
        revision: row.get(6)?,
        private: row.get(7)?,
    })
}

fn seen(row: &Row) -> rusqlite::Result<Seen> {
    Ok(Seen { room: room(row)?, role: row.get::<_, Option<i16>>(8)?.map(Role::of) })
}

fn stored(row: &Row) -> rusqlite::Result<Stored> {
    Ok(Stored { room: room(row)?, folded_name: row.get(8)?, search: row.get(9)? })
}

const TAKE_ID: &str = "/* create */ INSERT INTO room_ids (id) VALUES (?1) ON CONFLICT (id) DO NOTHING";

// A trigger adds the owner and the opening.
const CREATE: &str = "/* create */
    INSERT INTO rooms (
        id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision, private)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

const GET: &str = "/* get */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = ?2)
    FROM rooms WHERE id = ?1";

const VISIBLE: &str = "/* visible */
    SELECT id FROM rooms
    WHERE id = ?1 AND (NOT private OR EXISTS (SELECT 1 FROM members WHERE room_id = rooms.id AND user_id = ?2))";

// Both parts end at the limit, and neither reads private rooms of other users.
const LIST: &str = "/* list */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = ?4)
    FROM (
        SELECT * FROM (
            SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private
            FROM rooms INDEXED BY rooms_public
            WHERE NOT private AND (created_at_ms, id) < (?1, ?2) ORDER BY created_at_ms DESC, id DESC LIMIT ?3)
        UNION ALL
        SELECT * FROM (
            SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private
            FROM members CROSS JOIN rooms ON id = room_id
            WHERE user_id = ?4 AND private AND (created_at_ms, id) < (?1, ?2)
            ORDER BY created_at_ms DESC, id DESC LIMIT ?3)
    ) rooms
    ORDER BY created_at_ms DESC, id DESC LIMIT ?3";

const COUNT_INDEXED: &str =
    "/* search */ SELECT count(*) FROM (SELECT 1 FROM room_search WHERE room_search MATCH ?1 LIMIT ?2)";

// instr, unlike LIKE, takes the query literally: no character has a special meaning.
const SEARCH_INDEXED: &str = "/* search */
    SELECT rooms.id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = ?5)
    FROM room_search
    CROSS JOIN room_numbers ON number = room_search.rowid CROSS JOIN rooms ON rooms.id = room_numbers.id
    WHERE room_search MATCH ?6 AND NOT private AND (created_at_ms, rooms.id) < (?1, ?2) AND instr(search, ?4) > 0
    ORDER BY created_at_ms DESC, rooms.id DESC LIMIT ?3";

const SEARCH_LIST: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = ?5)
    FROM rooms INDEXED BY rooms_public
    WHERE NOT private AND (created_at_ms, id) < (?1, ?2) AND instr(search, ?4) > 0
    ORDER BY created_at_ms DESC, id DESC LIMIT ?3";

const SEARCH_OWN: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, role
    FROM members CROSS JOIN rooms ON id = room_id
    WHERE user_id = ?5 AND private AND (created_at_ms, id) < (?1, ?2) AND instr(search, ?4) > 0
    ORDER BY created_at_ms DESC, id DESC LIMIT ?3";

const BEYOND_ASCII: &str = "/* beyond_ascii */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, folded_name, search
    FROM rooms
    WHERE id > ?1 AND length(CAST(name || description AS BLOB)) > length(name || description) ORDER BY id LIMIT ?2";

const REFOLD_SEARCH: &str = "/* refold */ UPDATE rooms SET search = ?3 WHERE id = ?1 AND revision = ?2";

const REFOLD_NAME: &str = "/* refold */
    UPDATE OR IGNORE rooms SET folded_name = ?3 WHERE id = ?1 AND revision = ?2";

// An unchanged name may keep the compared form of an earlier release.
const UPDATE: &str = "/* update */
    UPDATE rooms SET name = ?3, folded_name = CASE WHEN name = ?3 THEN folded_name ELSE ?4 END, description = ?5,
                     search = ?6, private = ?7, revision = ?2
    WHERE id = ?1 AND revision = ?2 - 1";

const DELETE: &str = "/* delete */ DELETE FROM rooms WHERE id = ?1 AND revision = ?2 - 1";

impl RoomStore for SqliteStore {
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>> {
        let max_rooms = self.max_rooms;
        let write = move |connection: &Connection| {
            let Room { id, name, description, creator, created_at_ms, revision, private } = &room;
            if execute(connection, TAKE_ID, [id.as_bytes()])? == 0 {
                return Ok(false);
            }
            check_place(connection, Joining { user: creator.id, added_by: None }, max_rooms)?;
            let values = params![
                id.as_bytes(),
                name,
                room.folded_name(),
                description,
                room.search(),
                creator.id.as_bytes(),
                creator.username,
                created_at_ms,
                revision,
                private
            ];
            execute(connection, CREATE, values)?;
            Ok(true)
        };
        self.database.write(write).boxed()
    }

    fn get(&self, id: Uuid, reader: Option<Uuid>) -> BoxFuture<'_, Result<Option<Seen>>> {
        let get = move |connection: &Connection| {
            Ok(query(connection, GET, params![id.as_bytes(), parameter(reader)], seen)?.pop())
        };
        self.database.read(get).boxed()
    }

    fn visible(&self, ids: Vec<Uuid>, user: Uuid) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let visible = move |connection: &Connection| {
            let mut found = Vec::with_capacity(ids.len());
            for room in &ids {
                found.extend(query(connection, VISIBLE, [room.as_bytes(), user.as_bytes()], |row| id(row, 0))?);
            }
            Ok(found)
        };
        self.database.read(visible).boxed()
    }

    fn list(&self, reader: Option<Uuid>, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Seen>>> {
        let list = move |connection: &Connection| {
            let values = params![below.created_at_ms, below.id.as_bytes(), limit, parameter(reader)];
            query(connection, LIST, values, seen)
        };
        self.database.read(list).boxed()
    }

    fn search(
        &self,
        reader: Option<Uuid>,
        text: String,
        below: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Seen>>> {
        let (Position { created_at_ms, id }, SearchBounds { time, rooms }) = (below, self.bounds);
        let search = move |connection: &Connection| {
            // In hexadecimal, like the pieces in the migration.
            let indexed =
                pieces::of(&text).into_iter().map(|piece| hex(piece.as_bytes())).collect::<Vec<_>>().join(" ");
            let reader = parameter(reader);
            let mut count = connection.prepare_cached(COUNT_INDEXED)?;
            // For a query this common, the newest rooms contain a full page of matches.
            let mut found = if count.query_row(params![indexed, rooms + 1], |row| row.get::<_, u32>(0))? > rooms {
                query(connection, SEARCH_LIST, params![created_at_ms, id.as_bytes(), limit, text, reader], seen)?
            } else {
                let values = params![created_at_ms, id.as_bytes(), limit, text, reader, indexed];
                query(connection, SEARCH_INDEXED, values, seen)?
            };
            if reader.is_some() {
                let values = params![created_at_ms, id.as_bytes(), limit, text, reader];
                found.extend(query(connection, SEARCH_OWN, values, seen)?);
            }
            Ok(newest_first(found, limit))
        };
        let found = self.searchers.read_within(time, search);
        found.map_err(|error| if error.code == Code::Timeout { search_took_too_long() } else { error }).boxed()
    }

    fn searches(&self) -> usize {
        SEARCHES
    }

    fn beyond_ascii(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>> {
        self.database
            .read(move |connection| query(connection, BEYOND_ASCII, params![after.as_bytes(), limit], stored))
            .boxed()
    }

    fn refold(&self, room: Room) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            execute(connection, REFOLD_SEARCH, params![room.id.as_bytes(), room.revision, room.search()])?;
            execute(connection, REFOLD_NAME, params![room.id.as_bytes(), room.revision, room.folded_name()]).map(drop)
        };
        self.database.write(write).boxed()
    }

    fn update(&self, room: Room, event: RoomEvent) -> BoxFuture<'_, Result<bool>> {
        let write = move |connection: &Connection| {
            let Room { id, name, description, private, .. } = &room;
            let (folded, search) = (room.folded_name(), room.search());
            let values = params![id.as_bytes(), event.number, name, folded, description, search, private];
            let changed = execute(connection, UPDATE, values)? == 1;
            if changed {
                owe(connection, &event)?;
            }
            Ok(changed)
        };
        self.database.write(write).boxed()
    }

    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>> {
        let write = move |connection: &Connection| {
            let gone = execute(connection, DELETE, params![event.room_id.as_bytes(), event.number])? == 1;
            if gone {
                owe(connection, &event)?;
            }
            Ok(gone)
        };
        self.database.write(write).boxed()
    }
}
