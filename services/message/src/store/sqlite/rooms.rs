//! The rooms of the log: their heads, visibility and members.

use std::collections::HashSet;

use confab_common::Result;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::store::{LastTimes, Member, Reopening, Role, RoomAccess, RoomKey};

/// A room as the log has it; the default is a room that the log does not have.
#[derive(Debug, Default)]
pub struct Head {
    pub exists: bool,
    pub seq: i64,
    pub closed: bool,
    pub private: bool,
}

pub fn head(connection: &Connection, (partition, room): RoomKey) -> Result<Head> {
    let read = "/* room_head */ SELECT seq, closed, private FROM room_heads WHERE partition = ?1 AND room_id = ?2";
    let head = connection
        .prepare_cached(read)?
        .query_row(params![partition, room.as_bytes()], |row| {
            Ok(Head { exists: true, seq: row.get(0)?, closed: row.get(1)?, private: row.get(2)? })
        })
        .optional()?;
    Ok(head.unwrap_or_default())
}

/// Returns when the newest events of a room were appended; `seq` is its newest. A binary search finds the newest event
/// up to `until_ms`: a client chooses the time, so the events after it must not be scanned.
pub fn last_times(connection: &Connection, (partition, room): RoomKey, seq: i64, until_ms: i64) -> Result<LastTimes> {
    let read = "/* last_times */ SELECT created_at FROM events WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let mut read = connection.prepare_cached(read)?;
    let mut time_of =
        |seq: i64| read.query_row(params![partition, room.as_bytes(), seq], |row| row.get::<_, i64>(0)).optional();
    let newest = time_of(seq)?;
    if newest.is_none_or(|newest| newest <= until_ms) {
        return Ok(LastTimes { newest, until: newest });
    }
    let (mut low, mut high, mut until) = (0, seq, None);
    while high - low > 1 {
        let middle = (low + high) / 2;
        match time_of(middle)? {
            Some(time) if time <= until_ms => (low, until) = (middle, Some(time)),
            Some(_) => high = middle,
            None => break,
        }
    }
    Ok(LastTimes { newest, until })
}

/// Returns those of the users who are members of a room.
pub fn members(connection: &Connection, (partition, room): RoomKey, users: &[Uuid]) -> Result<Vec<Uuid>> {
    let read = "/* members */ SELECT 1 FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let mut read = connection.prepare_cached(read)?;
    let mut members = Vec::new();
    for user in users {
        if read.exists(params![partition, room.as_bytes(), user.as_bytes()])? {
            members.push(*user);
        }
    }
    Ok(members)
}

/// Returns a user's role in a room.
pub fn role(connection: &Connection, (partition, room): RoomKey, user: Uuid) -> Result<Option<Role>> {
    let read = "/* role */ SELECT role FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let key = params![partition, room.as_bytes(), user.as_bytes()];
    let role = connection.prepare_cached(read)?.query_row(key, |row| row.get::<_, i64>(0)).optional()?;
    role.map(Role::try_from).transpose()
}

/// Returns the right of these readers in a room with this head.
pub fn access(connection: &Connection, room: RoomKey, head: &Head, readers: &[Uuid]) -> Result<RoomAccess> {
    let readers = if head.private { members(connection, room, readers)? } else { Vec::new() };
    Ok(RoomAccess { exists: head.exists, private: head.private, readers })
}

/// Adds members to a room, or changes their roles, from `seq` on.
pub fn grant(connection: &Connection, (partition, room): RoomKey, members: &[Member], seq: i64) -> Result<()> {
    let mut grant = connection.prepare_cached(
        "/* grant */ INSERT INTO room_members (partition, room_id, user_id, role, since_seq) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role",
    )?;
    for member in members {
        grant.execute(params![partition, room.as_bytes(), member.user.as_bytes(), member.role as i64, seq])?;
    }
    Ok(())
}

/// Gives a room its visibility and members again, once in this epoch.
pub fn reopen(connection: &Connection, (partition, room): RoomKey, again: &Reopening) -> Result<()> {
    let Reopening { epoch, private, members, partial } = again;
    let reopen = "/* reopen_room */ INSERT INTO room_heads AS h (partition, room_id, seq, private, opened, opened_in)
        SELECT ?1, ?2, 0, ?3, 1, epoch FROM log WHERE epoch = ?4
        ON CONFLICT (partition, room_id) DO UPDATE SET private = excluded.private, opened = 1, opened_in = excluded.opened_in
        WHERE h.opened_in IS NOT excluded.opened_in";
    let values = params![partition, room.as_bytes(), private, epoch.as_bytes()];
    if connection.prepare_cached(reopen)?.execute(values)? == 0 {
        return Ok(());
    }
    if !partial {
        let read = "/* reopen_room */ SELECT user_id FROM room_members WHERE partition = ?1 AND room_id = ?2";
        let users = connection
            .prepare_cached(read)?
            .query_map(params![partition, room.as_bytes()], |row| row.get(0).map(Uuid::from_bytes))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let present = members.iter().map(|member| member.user).collect::<HashSet<_>>();
        let remove =
            "/* reopen_room */ DELETE FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
        let mut remove = connection.prepare_cached(remove)?;
        for user in users.into_iter().filter(|user| !present.contains(user)) {
            remove.execute(params![partition, room.as_bytes(), user.as_bytes()])?;
        }
    }
    let head = head(connection, (partition, room))?;
    grant(connection, (partition, room), members, head.seq)
}

/// Opens a room, unless it was opened before: a late repeat must not bring a removed member back.
pub fn open(connection: &Connection, (partition, room): RoomKey, private: bool, members: &[Member]) -> Result<()> {
    let open = "/* open_room */ INSERT INTO room_heads AS h (partition, room_id, seq, private, opened) VALUES (?1, ?2, 0, ?3, 1)
        ON CONFLICT (partition, room_id) DO UPDATE SET private = excluded.private, opened = 1 WHERE NOT h.opened";
    let opened = connection.prepare_cached(open)?.execute(params![partition, room.as_bytes(), private])?;
    if opened == 0 {
        return Ok(());
    }
    grant(connection, (partition, room), members, 0)
}
