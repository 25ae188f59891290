//! The outbox in a SQLite file.

use confab_common::Result;
use confab_common::operations::Operations;
use futures::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::{SqliteStore, execute, id, parameter, query};
use crate::store::{MAX_OPENING_MEMBERS, Opening, OpeningRow, OutboxStore, Owed, Role, RoomEvent, User};

fn owed(row: &Row) -> rusqlite::Result<Owed> {
    let event = RoomEvent {
        id: id(row, 0)?,
        room_id: id(row, 1)?,
        number: row.get(2)?,
        sender: User { id: id(row, 3)?, username: row.get(4)? },
        event: row.get(5)?,
        data: row.get(6)?,
        closes_room: row.get(7)?,
        access: row.get(8)?,
    };
    Ok(Owed { event, room_gone: row.get(9)?, unopened: row.get(10)? })
}

fn opening_row(row: &Row) -> rusqlite::Result<OpeningRow> {
    let member = match row.get::<_, Option<[u8; 16]>>(1)? {
        Some(user) => Some((Uuid::from_bytes(user), Role::of(row.get(2)?))),
        None => None,
    };
    Ok((row.get(0)?, row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes), member))
}

const OWE: &str = "/* owe */
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room, access)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const OLDEST: &str = "/* oldest */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox WHERE room_id = ?1 ORDER BY number LIMIT ?2";

const CLOSING: &str = "/* closing */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox WHERE room_id = ?1 AND closes_room";

const OLDEST_OF_ROOMS: &str = "/* oldest_of_rooms */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox
    WHERE room_id IN (SELECT DISTINCT room_id FROM outbox WHERE room_id > ?1 ORDER BY room_id LIMIT ?2)
      AND number < (SELECT min(other.number) FROM outbox other WHERE other.room_id = outbox.room_id) + ?3
    ORDER BY room_id, number";

const REMOVE_EVENTS: &str = "/* settle */ DELETE FROM outbox WHERE id = ?1";

const UNOPENED: &str = "/* unopened */ SELECT room_id FROM openings WHERE room_id > ?1 ORDER BY room_id LIMIT ?2";

const OPENING: &str = "/* opening */
    SELECT rooms.private, members.user_id, members.role, openings.epoch
    FROM openings LEFT JOIN rooms ON rooms.id = openings.room_id LEFT JOIN members ON members.room_id = openings.room_id
    WHERE openings.room_id = ?1 ORDER BY members.role DESC, members.joined_at_ms, members.user_id LIMIT ?2";

const MEMBERS_BY_ID: &str = "/* members_by_id */
    SELECT user_id, role FROM members WHERE room_id = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3";

const REMOVE_OPENING: &str = "/* opened */ DELETE FROM openings WHERE room_id = ?1 AND epoch IS ?2";

const LOG_EPOCH: &str = "/* log_epoch */ SELECT epoch FROM log_epoch";

const RECORD_EPOCH: &str = "/* log_epoch */
    INSERT INTO log_epoch (one, epoch) VALUES (1, ?1)
    ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch WHERE log_epoch.epoch < excluded.epoch";

const ROOM_IDS: &str = "/* reopen */ SELECT id FROM room_ids WHERE id > ?1 ORDER BY id LIMIT ?2";

const REOPEN: &str = "/* reopen */
    INSERT INTO openings (room_id, epoch) VALUES (?1, ?2) ON CONFLICT (room_id) DO UPDATE SET epoch = excluded.epoch";

pub(super) fn owe(connection: &Connection, row: &RoomEvent) -> Result<()> {
    let RoomEvent { id, room_id, number, sender, event, data, closes_room, access } = row;
    let values = params![
        id.as_bytes(),
        room_id.as_bytes(),
        number,
        sender.id.as_bytes(),
        sender.username,
        event,
        data,
        closes_room,
        access
    ];
    execute(connection, OWE, values).map(drop)
}

impl OutboxStore for SqliteStore {
    fn oldest(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        self.database.read(move |connection| query(connection, OLDEST, params![room.as_bytes(), limit], owed)).boxed()
    }

    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        self.database.read(move |connection| Ok(query(connection, CLOSING, [room.as_bytes()], owed)?.pop())).boxed()
    }

    fn oldest_of_rooms(&self, after: Uuid, rooms: u32, each: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        let values = (after.into_bytes(), rooms, each);
        self.database.read(move |connection| query(connection, OLDEST_OF_ROOMS, values, owed)).boxed()
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

    fn unopened(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let list = move |connection: &Connection| {
            query(connection, UNOPENED, params![after.as_bytes(), limit], |row| id(row, 0))
        };
        self.database.read(list).boxed()
    }

    fn opening(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Opening>>> {
        let read = move |connection: &Connection| {
            let rows = query(connection, OPENING, params![room.as_bytes(), MAX_OPENING_MEMBERS + 1], opening_row)?;
            Ok(Opening::of(rows, MAX_OPENING_MEMBERS))
        };
        self.database.read(read).boxed()
    }

    fn members_by_id(&self, room: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, Role)>>> {
        let read = move |connection: &Connection| {
            let values = params![room.as_bytes(), after.as_bytes(), limit];
            query(connection, MEMBERS_BY_ID, values, |row| Ok((id(row, 0)?, Role::of(row.get(1)?))))
        };
        self.database.read(read).boxed()
    }

    fn remove_opening(&self, room: Uuid, epoch: Option<Uuid>) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            execute(connection, REMOVE_OPENING, params![room.as_bytes(), parameter(epoch)]).map(drop)
        };
        self.database.write(write).boxed()
    }

    fn log_epoch(&self) -> BoxFuture<'_, Result<Option<Uuid>>> {
        self.database.read(|connection| Ok(query(connection, LOG_EPOCH, [], |row| id(row, 0))?.pop())).boxed()
    }

    fn record_epoch(&self, epoch: Uuid) -> BoxFuture<'_, Result<()>> {
        self.database.write(move |connection| execute(connection, RECORD_EPOCH, [epoch.as_bytes()]).map(drop)).boxed()
    }

    fn reopen(&self, epoch: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Option<Uuid>>> {
        let write = move |connection: &Connection| {
            let page = query(connection, ROOM_IDS, params![after.as_bytes(), limit], |row| id(row, 0))?;
            for room in &page {
                execute(connection, REOPEN, [room.as_bytes(), epoch.as_bytes()])?;
            }
            Ok(page.last().copied())
        };
        self.database.write(write).boxed()
    }

    fn operations(&self) -> &dyn Operations {
        &self.database
    }
}
