//! The members of rooms in a SQLite file.

use confab_common::Result;
use futures::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::outbox::owe;
use super::{SqliteStore, check_place, execute, id, parameter, query, seen};
use crate::store::{
    Member, MemberChange, MemberPosition, MemberStore, Position, Role, Seen, SeenWithMember, User, user_gone,
};

fn member_at(row: &Row, column: usize) -> rusqlite::Result<Member> {
    Ok(Member {
        user: User { id: id(row, column)?, username: row.get(column + 1)? },
        role: Role::of(row.get(column + 2)?),
        joined_at_ms: row.get(column + 3)?,
    })
}

fn member(row: &Row) -> rusqlite::Result<Member> {
    member_at(row, 0)
}

fn seen_with_member(row: &Row) -> rusqlite::Result<SeenWithMember> {
    let is_member = row.get::<_, Option<[u8; 16]>>(9)?.is_some();
    Ok((seen(row)?, is_member.then(|| member_at(row, 9)).transpose()?))
}

const GET_MEMBER: &str = "/* get_member */
    SELECT rooms.id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = ?2),
           other.user_id, other.username, other.role, other.joined_at_ms
    FROM rooms LEFT JOIN members other ON other.room_id = rooms.id AND other.user_id = ?3 WHERE rooms.id = ?1";

const MEMBERS: &str = "/* members */
    SELECT user_id, username, role, joined_at_ms FROM (
        SELECT * FROM (
            SELECT user_id, username, role, joined_at_ms FROM members
            WHERE room_id = ?1 AND role = ?2 AND (joined_at_ms, user_id) > (?3, ?4)
            ORDER BY joined_at_ms, user_id LIMIT ?5)
        UNION ALL
        SELECT * FROM (
            SELECT user_id, username, role, joined_at_ms FROM members
            WHERE room_id = ?1 AND role < ?2 ORDER BY role DESC, joined_at_ms, user_id LIMIT ?5)
    )
    ORDER BY role DESC, joined_at_ms, user_id LIMIT ?5";

const FIRST_OTHERS: &str = "/* first_others */
    SELECT user_id, username, role, joined_at_ms FROM members
    WHERE room_id = ?1 AND user_id <> ?2
      AND NOT EXISTS (SELECT 1 FROM gone_users gone WHERE gone.user_id = members.user_id)
    ORDER BY role DESC, joined_at_ms, user_id LIMIT ?3";

const RECORD_GONE: &str = "/* record_gone */
    INSERT INTO gone_users (user_id, username) VALUES (?1, ?2) ON CONFLICT (user_id) DO NOTHING";

const RECORD_LEFT: &str = "/* record_left */ UPDATE gone_users SET left_at_ms = ?2, settled = false WHERE user_id = ?1";

const UNSETTLED: &str = "/* unsettled */
    SELECT user_id, username, left_at_ms FROM gone_users
    WHERE NOT settled AND left_at_ms IS NOT NULL AND user_id > ?1 ORDER BY user_id LIMIT ?2";

const SETTLE: &str = "/* settle_user */ UPDATE gone_users SET settled = true WHERE user_id = ?1";

const IS_GONE: &str = "/* change_members */ SELECT 1 FROM gone_users WHERE user_id = ?1";

const ROOMS_OF: &str = "/* rooms_of */ SELECT room_id FROM members WHERE user_id = ?1 ORDER BY room_id LIMIT ?2";

const OWN_ROOMS: &str = "/* own_rooms */
    SELECT created_at_ms, id FROM members CROSS JOIN rooms ON id = room_id
    WHERE user_id = ?1 AND (?2 = '' OR instr(search, ?2) > 0)";

const READ_OWN: &str = "/* read_own */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, role
    FROM members JOIN rooms ON id = room_id WHERE user_id = ?1 AND room_id = ?2";

const RAISE: &str = "/* change_members */ UPDATE rooms SET revision = ?2 WHERE id = ?1 AND revision = ?2 - 1";

const REMOVE: &str = "/* change_members */ DELETE FROM members WHERE room_id = ?1 AND user_id = ?2";

const SET: &str = "/* change_members */
    INSERT INTO members (room_id, user_id, username, role, joined_at_ms, added_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role";

/// Applies a change; after an error, the savepoint is rolled back.
fn apply(connection: &Connection, change: &MemberChange, max_rooms: u32) -> Result<bool> {
    let MemberChange { set, removed, joins, event } = change;
    let room = event.room_id.as_bytes();
    if execute(connection, RAISE, params![room, event.number])? == 0 {
        return Ok(false);
    }
    if let Some(joins) = joins {
        if connection.prepare_cached(IS_GONE)?.exists([joins.user.as_bytes()])? {
            return Err(user_gone());
        }
        check_place(connection, *joins, max_rooms)?;
    }
    if let Some(user) = removed {
        execute(connection, REMOVE, params![room, user.as_bytes()])?;
    }
    for Member { user, role, joined_at_ms } in set {
        let added_by = joins.filter(|joins| joins.user == user.id).and_then(|joins| joins.added_by);
        let (id, added_by) = (user.id.as_bytes(), parameter(added_by));
        execute(connection, SET, params![room, id, user.username, role.number(), joined_at_ms, added_by])?;
    }
    owe(connection, event)?;
    Ok(true)
}

impl MemberStore for SqliteStore {
    fn get_member(
        &self,
        room: Uuid,
        reader: Uuid,
        user: Option<Uuid>,
    ) -> BoxFuture<'_, Result<Option<SeenWithMember>>> {
        let get = move |connection: &Connection| {
            let values = params![room.as_bytes(), reader.as_bytes(), parameter(user)];
            Ok(query(connection, GET_MEMBER, values, seen_with_member)?.pop())
        };
        self.database.read(get).boxed()
    }

    fn members(&self, room: Uuid, after: MemberPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>> {
        let list = move |connection: &Connection| {
            let MemberPosition { role, joined_at_ms, user } = after;
            query(connection, MEMBERS, params![room.as_bytes(), role, joined_at_ms, user.as_bytes(), limit], member)
        };
        self.database.read(list).boxed()
    }

    fn first_others(&self, room: Uuid, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>> {
        let first = move |connection: &Connection| {
            query(connection, FIRST_OTHERS, params![room.as_bytes(), user.as_bytes(), limit], member)
        };
        self.database.read(first).boxed()
    }

    fn rooms_of(&self, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let list = move |connection: &Connection| {
            query(connection, ROOMS_OF, params![user.as_bytes(), limit], |row| id(row, 0))
        };
        self.database.read(list).boxed()
    }

    fn own_rooms(&self, user: Uuid, text: String) -> BoxFuture<'_, Result<Vec<Position>>> {
        let list = move |connection: &Connection| {
            let position = |row: &Row| Ok(Position { created_at_ms: row.get(0)?, id: id(row, 1)? });
            query(connection, OWN_ROOMS, params![user.as_bytes(), text], position)
        };
        self.database.read(list).boxed()
    }

    fn read_own(&self, user: Uuid, rooms: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Seen>>> {
        let read = move |connection: &Connection| {
            let mut found = Vec::with_capacity(rooms.len());
            for room in &rooms {
                found.extend(query(connection, READ_OWN, params![user.as_bytes(), room.as_bytes()], seen)?);
            }
            Ok(found)
        };
        self.database.read(read).boxed()
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<bool>> {
        let max_rooms = self.max_rooms;
        self.database.write(move |connection| apply(connection, &change, max_rooms)).boxed()
    }

    fn record_gone(&self, user: User) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            execute(connection, RECORD_GONE, params![user.id.as_bytes(), user.username]).map(drop)
        };
        self.database.write(write).boxed()
    }

    fn record_left(&self, user: Uuid, at_ms: i64) -> BoxFuture<'_, Result<()>> {
        let write =
            move |connection: &Connection| execute(connection, RECORD_LEFT, params![user.as_bytes(), at_ms]).map(drop);
        self.database.write(write).boxed()
    }

    fn unsettled(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(User, i64)>>> {
        let list = move |connection: &Connection| {
            query(connection, UNSETTLED, params![after.as_bytes(), limit], |row| {
                Ok((User { id: id(row, 0)?, username: row.get(1)? }, row.get(2)?))
            })
        };
        self.database.read(list).boxed()
    }

    fn settle(&self, user: Uuid) -> BoxFuture<'_, Result<()>> {
        self.database.write(move |connection| execute(connection, SETTLE, [user.as_bytes()]).map(drop)).boxed()
    }
}
