//! The rooms of the log: their heads, visibility and members.

use std::collections::HashSet;

use confab_common::{Error, Result};
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
    /// The newest ordinal.
    pub messages: i64,
    /// The newest `seq` before the first ordinal; `None` while a room of an earlier release has no ordinal.
    pub counted_from: Option<i64>,
}

pub fn head(connection: &Connection, (partition, room): RoomKey) -> Result<Head> {
    let read = "/* room_head */ SELECT seq, closed, private, messages, counted_from FROM room_heads
        WHERE partition = ?1 AND room_id = ?2";
    let head = connection
        .prepare_cached(read)?
        .query_row(params![partition, room.as_bytes()], |row| {
            Ok(Head {
                exists: true,
                seq: row.get(0)?,
                closed: row.get(1)?,
                private: row.get(2)?,
                messages: row.get(3)?,
                counted_from: row.get(4)?,
            })
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

/// Adds members to a room, or changes their roles, from `seq` on, up to which the room has this number of countable
/// messages.
pub fn grant(
    connection: &Connection,
    (partition, room): RoomKey,
    members: &[Member],
    seq: i64,
    messages: i64,
) -> Result<()> {
    let mut grant = connection.prepare_cached(
        "/* grant */ INSERT INTO room_members (partition, room_id, user_id, role, since_seq, read_seq, read_ordinal)
        VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
        ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role",
    )?;
    for member in members {
        let role = member.role as i64;
        grant.execute(params![partition, room.as_bytes(), member.user.as_bytes(), role, seq, messages])?;
    }
    Ok(())
}

/// Gives a room its visibility and members again, once in this epoch, in one call or in several. Members that no call
/// has named leave with the last one. The events after the first call win over the calls, which may be older.
pub fn reopen(connection: &Connection, (partition, room): RoomKey, again: &Reopening) -> Result<()> {
    let Some((since, head)) = begin_reopening(connection, (partition, room), again)? else { return Ok(()) };
    let changed = changed_since(connection, (partition, room), since)?;
    let name = "/* reopen_room */
        INSERT INTO room_members (partition, room_id, user_id, role, since_seq, opened_in)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role, opened_in = excluded.opened_in";
    let mut name = connection.prepare_cached(name)?;
    for Member { user, role } in again.members.iter().filter(|member| !changed.contains(&member.user)) {
        let epoch = again.epoch.as_bytes();
        name.execute(params![partition, room.as_bytes(), user.as_bytes(), *role as i64, head, epoch])?;
    }
    if again.partial { Ok(()) } else { end_reopening(connection, (partition, room), again.epoch, &changed) }
}

/// Returns the room's newest `seq` at the first call of this epoch, and at present; `None` after the last call, and in
/// another epoch.
fn begin_reopening(
    connection: &Connection,
    (partition, room): RoomKey,
    Reopening { epoch, private, .. }: &Reopening,
) -> Result<Option<(i64, i64)>> {
    let begin = "/* reopen_room */
        INSERT INTO room_heads AS h (partition, room_id, seq, private, opened, opening_in, opening_seq, counted_from)
        SELECT ?1, ?2, 0, ?4, 1, epoch, 0, 0 FROM log WHERE epoch = ?3
        ON CONFLICT (partition, room_id) DO UPDATE
        SET private = excluded.private, opened = 1, opening_in = excluded.opening_in, opening_seq = h.seq
        WHERE h.opened_in IS NOT excluded.opening_in AND h.opening_in IS NOT excluded.opening_in";
    connection.prepare_cached(begin)?.execute(params![partition, room.as_bytes(), epoch.as_bytes(), private])?;
    let read = "/* reopen_room */ SELECT h.opening_seq, h.seq FROM room_heads h JOIN log ON log.epoch = ?3
        WHERE h.partition = ?1 AND h.room_id = ?2 AND h.opening_in = ?3 AND h.opened_in IS NOT ?3";
    let values = params![partition, room.as_bytes(), epoch.as_bytes()];
    Ok(connection.prepare_cached(read)?.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Removes the members that no call of this epoch has named, except those that events have `changed`.
fn end_reopening(
    connection: &Connection,
    (partition, room): RoomKey,
    epoch: Uuid,
    changed: &HashSet<Uuid>,
) -> Result<()> {
    let read = "/* reopen_room */ SELECT user_id FROM room_members
        WHERE partition = ?1 AND room_id = ?2 AND opened_in IS NOT ?3";
    let values = params![partition, room.as_bytes(), epoch.as_bytes()];
    let unnamed = connection
        .prepare_cached(read)?
        .query_map(values, |row| row.get(0).map(Uuid::from_bytes))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let remove = "/* reopen_room */ DELETE FROM room_members WHERE partition = ?1 AND room_id = ?2 AND user_id = ?3";
    let mut remove = connection.prepare_cached(remove)?;
    for user in unnamed.into_iter().filter(|user| !changed.contains(user)) {
        remove.execute(params![partition, room.as_bytes(), user.as_bytes()])?;
    }
    let end = "/* reopen_room */ UPDATE room_heads SET opened_in = ?3 WHERE partition = ?1 AND room_id = ?2";
    connection.prepare_cached(end)?.execute(values)?;
    Ok(())
}

/// Returns the users whose membership or role the events of a room above `seq` have changed.
fn changed_since(connection: &Connection, (partition, room): RoomKey, seq: i64) -> Result<HashSet<Uuid>> {
    let read = "/* reopen_room */
        SELECT json_extract(added.value, '$.user') FROM events e, json_each(e.body, '$.access.members') added
        WHERE e.partition = ?1 AND e.room_id = ?2 AND e.seq > ?3 AND e.kind = 3
        UNION
        SELECT removed.value FROM events e, json_each(e.body, '$.access.removed') removed
        WHERE e.partition = ?1 AND e.room_id = ?2 AND e.seq > ?3 AND e.kind = 3";
    let users = connection
        .prepare_cached(read)?
        .query_map(params![partition, room.as_bytes(), seq], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    users.iter().map(|user| Uuid::try_parse(user).map_err(Error::internal)).collect()
}

/// Opens a room, unless it was opened before: a late repeat must not bring a removed member back.
pub fn open(connection: &Connection, (partition, room): RoomKey, private: bool, members: &[Member]) -> Result<()> {
    let open = "/* open_room */ INSERT INTO room_heads AS h (partition, room_id, seq, private, opened, counted_from)
        VALUES (?1, ?2, 0, ?3, 1, 0)
        ON CONFLICT (partition, room_id) DO UPDATE SET private = excluded.private, opened = 1 WHERE NOT h.opened";
    let opened = connection.prepare_cached(open)?.execute(params![partition, room.as_bytes(), private])?;
    if opened == 0 {
        return Ok(());
    }
    grant(connection, (partition, room), members, 0, 0)
}
