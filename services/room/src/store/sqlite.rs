//! Rooms in a SQLite file. Each write is a savepoint in a shared commit.

use std::path::Path;

use confab_common::sqlite::{Database, Readers, is_unique_violation};
use confab_common::transfer::hex;
use confab_common::{Code, Error, Result};
use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::{
    Owed, Position, Room, RoomEvent, SEARCH_BOUNDS, SearchBounds, Store, Stored, User, pieces, search_took_too_long,
};

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
}

impl SqliteStore {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::open(path, embedded::migrations::runner())?;
        let searchers = database.readers().apart(SEARCHES);
        Ok(Self { database, searchers, bounds: SEARCH_BOUNDS })
    }
}

/// Returns the number of rows changed.
fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    connection.prepare_cached(sql)?.execute(values).map_err(|error| {
        if is_unique_violation(&error) {
            // Ids are never reused, so only a name can collide.
            Error::new(Code::RoomNameTaken, "a public room with this name exists")
        } else {
            error.into()
        }
    })
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

fn room(row: &Row) -> rusqlite::Result<Room> {
    Ok(Room {
        id: id(row, 0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        owner: User { id: id(row, 3)?, username: row.get(4)? },
        created_at_ms: row.get(5)?,
        revision: row.get(6)?,
    })
}

fn stored(row: &Row) -> rusqlite::Result<Stored> {
    Ok(Stored { room: room(row)?, folded_name: row.get(7)?, search: row.get(8)? })
}

fn owed(row: &Row) -> rusqlite::Result<Owed> {
    let event = RoomEvent {
        id: id(row, 0)?,
        room_id: id(row, 1)?,
        number: row.get(2)?,
        sender: User { id: id(row, 3)?, username: row.get(4)? },
        event: row.get(5)?,
        data: row.get(6)?,
        closes_room: row.get(7)?,
    };
    Ok(Owed { event, room_gone: row.get(8)? })
}

const TAKE_ID: &str = "/* create */ INSERT INTO room_ids (id) VALUES (?1) ON CONFLICT (id) DO NOTHING";

const CREATE: &str = "/* create */
    INSERT INTO rooms (id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const GET: &str = "/* get */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms WHERE id = ?1";

const LIST: &str = "/* list */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms
    WHERE (created_at_ms, id) < (?1, ?2) ORDER BY created_at_ms DESC, id DESC LIMIT ?3";

const COUNT_INDEXED: &str =
    "/* search */ SELECT count(*) FROM (SELECT 1 FROM room_search WHERE room_search MATCH ?1 LIMIT ?2)";

// instr, unlike LIKE, takes the query literally: no character has a special meaning.
const SEARCH_INDEXED: &str = "/* search */
    SELECT rooms.id, name, description, owner_id, owner_name, created_at_ms, revision
    FROM room_search CROSS JOIN room_numbers ON number = room_search.rowid CROSS JOIN rooms ON rooms.id = room_numbers.id
    WHERE room_search MATCH ?5 AND (created_at_ms, rooms.id) < (?1, ?2) AND instr(search, ?4) > 0
    ORDER BY created_at_ms DESC, rooms.id DESC LIMIT ?3";

const SEARCH_LIST: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms
    WHERE (created_at_ms, id) < (?1, ?2) AND instr(search, ?4) > 0 ORDER BY created_at_ms DESC, id DESC LIMIT ?3";

const BEYOND_ASCII: &str = "/* beyond_ascii */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, folded_name, search FROM rooms
    WHERE id > ?1 AND length(CAST(name || description AS BLOB)) > length(name || description) ORDER BY id LIMIT ?2";

const REFOLD_SEARCH: &str = "/* refold */ UPDATE rooms SET search = ?3 WHERE id = ?1 AND revision = ?2";

const REFOLD_NAME: &str = "/* refold */
    UPDATE OR IGNORE rooms SET folded_name = ?3 WHERE id = ?1 AND revision = ?2";

// An unchanged name may keep the compared form of an earlier release.
const UPDATE: &str = "/* update */
    UPDATE rooms SET name = ?3, folded_name = CASE WHEN name = ?3 THEN folded_name ELSE ?4 END, description = ?5, search = ?6, revision = ?2
    WHERE id = ?1 AND revision = ?2 - 1";

const DELETE: &str = "/* delete */ DELETE FROM rooms WHERE id = ?1 AND revision = ?2 - 1";

const OWE: &str = "/* owe */
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const OLDEST: &str = "/* oldest */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox WHERE room_id = ?1 ORDER BY number LIMIT 1";

const CLOSING: &str = "/* closing */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox WHERE room_id = ?1 AND closes_room";

const OLDEST_OF_ROOMS: &str = "/* oldest_of_rooms */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox
    WHERE room_id > ?1 AND number = (SELECT min(other.number) FROM outbox other WHERE other.room_id = outbox.room_id)
    ORDER BY room_id LIMIT ?2";

const REMOVE_EVENTS: &str = "/* settle */ DELETE FROM outbox WHERE id = ?1";

fn owe(connection: &Connection, row: &RoomEvent) -> Result<()> {
    let RoomEvent { id, room_id, number, sender, event, data, closes_room } = row;
    let values = params![
        id.as_bytes(),
        room_id.as_bytes(),
        number,
        sender.id.as_bytes(),
        sender.username,
        event,
        data,
        closes_room
    ];
    execute(connection, OWE, values).map(drop)
}

impl Store for SqliteStore {
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>> {
        let write = move |connection: &Connection| {
            let Room { id, name, description, owner, created_at_ms, revision } = &room;
            if execute(connection, TAKE_ID, [id.as_bytes()])? == 0 {
                return Ok(false);
            }
            let values = params![
                id.as_bytes(),
                name,
                room.folded_name(),
                description,
                room.search(),
                owner.id.as_bytes(),
                owner.username,
                created_at_ms,
                revision
            ];
            execute(connection, CREATE, values)?;
            Ok(true)
        };
        self.database.write(write).boxed()
    }

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<Room>>> {
        self.database.read(move |connection| Ok(query(connection, GET, [id.as_bytes()], room)?.pop())).boxed()
    }

    fn list(&self, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>> {
        let Position { created_at_ms, id } = below;
        self.database
            .read(move |connection| query(connection, LIST, params![created_at_ms, id.as_bytes(), limit], room))
            .boxed()
    }

    fn search(&self, text: String, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>> {
        let (Position { created_at_ms, id }, SearchBounds { time, rooms }) = (below, self.bounds);
        let search = move |connection: &Connection| {
            // In hexadecimal, like the pieces in the migration.
            let indexed =
                pieces::of(&text).into_iter().map(|piece| hex(piece.as_bytes())).collect::<Vec<_>>().join(" ");
            let mut count = connection.prepare_cached(COUNT_INDEXED)?;
            // For a query this common, the newest rooms contain a full page of matches.
            if count.query_row(params![indexed, rooms + 1], |row| row.get::<_, u32>(0))? > rooms {
                return query(connection, SEARCH_LIST, params![created_at_ms, id.as_bytes(), limit, text], room);
            }
            query(connection, SEARCH_INDEXED, params![created_at_ms, id.as_bytes(), limit, text, indexed], room)
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
            let (folded, search) = (room.folded_name(), room.search());
            let values = params![room.id.as_bytes(), event.number, room.name, folded, room.description, search];
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

    fn oldest(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        self.database.read(move |connection| Ok(query(connection, OLDEST, [room.as_bytes()], owed)?.pop())).boxed()
    }

    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        self.database.read(move |connection| Ok(query(connection, CLOSING, [room.as_bytes()], owed)?.pop())).boxed()
    }

    fn oldest_of_rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        self.database
            .read(move |connection| query(connection, OLDEST_OF_ROOMS, params![after.as_bytes(), limit], owed))
            .boxed()
    }

    fn remove_events(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            for id in &events {
                execute(connection, REMOVE_EVENTS, [id.as_bytes()])?;
            }
            Ok(())
        };
        self.database.write(write).boxed()
    }
}
