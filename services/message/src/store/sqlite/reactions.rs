//! Reactions: their append, and the reads of who has reacted.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::moving::{Moving, insert};
use super::{Sqlite, judging, rooms, rows};
use crate::store::{
    Body, EventData, Kind, MAX_NAMES, MAX_REACTED, Outcome, OwnReactions, Reacted, Reaction, ReactionEntry,
    ReactionList, ReactionPlace, ReactionStore, Readers, Refusal, RoomAccess, RoomKey, client_id, number,
};

/// Appends a batch of reactions, those to one message as one event.
pub fn append(
    connection: &Connection,
    batch: &[Arc<EventData>],
    created_at_ms: i64,
    moving: &mut Moving,
) -> Result<Vec<Outcome>> {
    let (mut folds, mut places) = (Vec::<Vec<usize>>::new(), HashMap::new());
    for (n, data) in batch.iter().enumerate() {
        let target = (data.partition, data.room, data.change.map(|change| change.target));
        let place = places.entry(target).or_insert(usize::MAX);
        if folds.get(*place).is_none_or(|fold| fold.len() == MAX_REACTED) {
            *place = folds.len();
            folds.push(Vec::new());
        }
        folds[*place].push(n);
    }
    let mut outcomes = batch.iter().map(|_| Outcome::Hidden).collect::<Vec<_>>();
    for fold in folds {
        append_fold(connection, batch, &fold, created_at_ms, moving, &mut outcomes)?;
    }
    for (data, outcome) in batch.iter().zip(&mut outcomes) {
        if let (Outcome::Reacted(_, own), Some(change)) = (outcome, data.change) {
            *own = own_names(connection, (data.partition, data.room), change.target, data.sender)?;
        }
    }
    Ok(outcomes)
}

/// Appends the reactions of a batch with these numbers, which are to one message.
fn append_fold(
    connection: &Connection,
    batch: &[Arc<EventData>],
    fold: &[usize],
    created_at_ms: i64,
    moving: &mut Moving,
    outcomes: &mut [Outcome],
) -> Result<()> {
    let Some((data, change)) = fold.first().and_then(|n| Some((&batch[*n], batch[*n].change?))) else { return Ok(()) };
    let key = (data.partition, data.room);
    let mut reactions = present(connection, key, change.target)?;
    let (mut reacted, mut numbers) = (Vec::new(), Vec::new());
    for n in fold {
        let data = &batch[*n];
        outcomes[*n] = match judge(connection, data, &reactions, moving)? {
            Some(outcome) => outcome,
            None => {
                let asked = asked(data)?;
                if set(connection, data, change.target, asked, created_at_ms)? {
                    count(&mut reactions, asked);
                    reacted.push(asked.clone());
                    numbers.push(*n);
                }
                Outcome::unmoved(data, Vec::new())
            }
        };
    }
    let Some(first) = numbers.first().map(|n| &batch[*n]) else { return Ok(()) };
    // A repeat sets its state again, as another event.
    let id = Uuid::now_v7();
    let body = Body {
        sender_username: first.body.sender_username.clone(),
        reacted,
        reactions: reactions.clone(),
        ..Body::default()
    };
    let event = EventData { id, client_id: client_id(None, id), body, ..EventData::clone(first) };
    let event = insert(connection, &Arc::new(event), created_at_ms, moving)?;
    let texts =
        (!reactions.is_empty()).then(|| serde_json::to_string(&reactions)).transpose().map_err(Error::internal)?;
    let update =
        "/* append */ UPDATE message_state SET reactions = ?4 WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    connection.prepare_cached(update)?.execute(params![key.0, key.1.as_bytes(), number(change.target), texts])?;
    for n in numbers {
        outcomes[n] = Outcome::Reacted(event.clone(), Vec::new());
    }
    Ok(())
}

fn asked(data: &EventData) -> Result<&Reacted> {
    data.body.reacted.first().ok_or_else(|| Error::internal("a reaction without a name"))
}

/// Returns the outcome of a reaction that is not to be set; `None` if it is.
fn judge(
    connection: &Connection,
    data: &Arc<EventData>,
    reactions: &[Reaction],
    moving: &mut Moving,
) -> Result<Option<Outcome>> {
    if moving.hides(connection, data)? {
        return Ok(Some(Outcome::Hidden));
    }
    if let Some(change) = &data.change
        && let Some(outcome) = judging::judge(connection, data, change)?
    {
        return Ok(Some(outcome));
    }
    let asked = asked(data)?;
    let is_new = asked.on && reactions.iter().all(|reaction| reaction.name != asked.name);
    Ok((is_new && reactions.len() >= MAX_NAMES).then_some(Outcome::Refused(Refusal::TooManyNames)))
}

fn present(connection: &Connection, (partition, room): RoomKey, seq: u64) -> Result<Vec<Reaction>> {
    let read = "/* append */ SELECT reactions FROM message_state WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let key = params![partition, room.as_bytes(), number(seq)];
    let text = connection.prepare_cached(read)?.query_row(key, |row| row.get::<_, Option<String>>(0)).optional()?;
    Reaction::list(text.flatten().as_deref())
}

/// Sets or ends a reaction; returns whether that has changed anything.
fn set(connection: &Connection, data: &EventData, target: u64, asked: &Reacted, at_ms: i64) -> Result<bool> {
    let (room, seq, user) = (data.room.as_bytes(), number(target), data.sender.as_bytes());
    let changed = if asked.on {
        let insert = "/* append */ INSERT INTO reactions (partition, room_id, seq, user_id, name, username, at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
        let values = params![data.partition, room, seq, user, asked.name, asked.username, at_ms];
        connection.prepare_cached(insert)?.execute(values)?
    } else {
        let delete = "/* append */ DELETE FROM reactions
            WHERE partition = ?1 AND room_id = ?2 AND seq = ?3 AND user_id = ?4 AND name = ?5";
        connection.prepare_cached(delete)?.execute(params![data.partition, room, seq, user, asked.name])?
    };
    Ok(changed > 0)
}

/// Counts a reaction that was set or ended.
fn count(reactions: &mut Vec<Reaction>, reacted: &Reacted) {
    match (reactions.iter_mut().find(|reaction| reaction.name == reacted.name), reacted.on) {
        (Some(reaction), true) => reaction.count += 1,
        (Some(reaction), false) => reaction.count -= 1,
        (None, true) => reactions.push(Reaction { name: reacted.name.clone(), count: 1 }),
        (None, false) => {}
    }
    reactions.retain(|reaction| reaction.count > 0);
}

fn own_names(connection: &Connection, (partition, room): RoomKey, seq: u64, user: Uuid) -> Result<Vec<String>> {
    let read = "/* own_reactions */ SELECT name FROM reactions
        WHERE partition = ?1 AND room_id = ?2 AND seq = ?3 AND user_id = ?4 ORDER BY name LIMIT ?5";
    let values = params![partition, room.as_bytes(), number(seq), user.as_bytes(), MAX_NAMES as i64];
    let mut statement = connection.prepare_cached(read)?;
    let names = statement.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// Deletes reactions to a deleted message, at most `most`; returns how many.
pub fn erase(connection: &Connection, (partition, room): RoomKey, seq: i64, most: u32) -> Result<usize> {
    let delete = "/* erase_deleted */ DELETE FROM reactions WHERE partition = ?1 AND room_id = ?2 AND seq = ?3
        AND (user_id, name) IN (
            SELECT user_id, name FROM reactions WHERE partition = ?1 AND room_id = ?2 AND seq = ?3
            ORDER BY user_id, name LIMIT ?4)";
    Ok(connection.prepare_cached(delete)?.execute(params![partition, room.as_bytes(), seq, most])?)
}

impl ReactionStore for Sqlite {
    fn reactions(
        &self,
        room: RoomKey,
        seq: u64,
        name: Option<String>,
        after: ReactionPlace,
        limit: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(ReactionList, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let (access, may_read) = right(connection, room, &readers)?;
            let message = if may_read { rows::message(connection, room, seq)? } else { None };
            let message = message.filter(|message| matches!(message.data.kind, Kind::Message | Kind::File));
            let Some(message) = message else { return Ok((ReactionList::default(), access)) };
            let names = message.state.map(|state| state.reactions).unwrap_or_default();
            let wanted = names.into_iter().filter(|it| name.as_ref().is_none_or(|name| *name == it.name));
            let mut reactions = Vec::new();
            for Reaction { name, .. } in wanted {
                list(connection, (room, seq, &name), &after, limit, &mut reactions)?;
            }
            reactions.sort_by(|a, b| (a.at_ms, a.user.0, &a.name).cmp(&(b.at_ms, b.user.0, &b.name)));
            reactions.truncate(limit as usize);
            Ok((ReactionList { exists: true, reactions }, access))
        };
        self.database.read(read).boxed()
    }

    fn own_reactions(
        &self,
        room: RoomKey,
        user: Uuid,
        mut seqs: Vec<u64>,
    ) -> BoxFuture<'_, Result<(OwnReactions, RoomAccess)>> {
        let read = move |connection: &Connection| {
            let (access, may_read) = right(connection, room, &Readers::Users(vec![user]))?;
            let mut own = Vec::new();
            seqs.sort_unstable();
            for seq in seqs.into_iter().filter(|_| may_read) {
                own.extend(own_names(connection, room, seq, user)?.into_iter().map(|name| (seq, name)));
            }
            Ok((own, access))
        };
        self.database.read(read).boxed()
    }
}

fn right(connection: &Connection, room: RoomKey, readers: &Readers) -> Result<(RoomAccess, bool)> {
    let head = rooms::head(connection, room)?;
    let access = rooms::access(connection, room, &head, readers.users())?;
    let may_read = readers.may_read(&access);
    Ok((access, may_read))
}

/// Adds the reactions with a name, in the order of their index.
fn list(
    connection: &Connection,
    ((partition, room), seq, name): (RoomKey, u64, &str),
    after: &ReactionPlace,
    limit: u32,
    reactions: &mut Vec<ReactionEntry>,
) -> Result<()> {
    let read = "/* reactions */ SELECT user_id, username, name, at FROM reactions INDEXED BY reactions_at
        WHERE partition = ?1 AND room_id = ?2 AND seq = ?3 AND name = ?4
            AND (at, user_id) >= (?5, ?6) AND (at, user_id, name) > (?5, ?6, ?7)
        ORDER BY at, user_id LIMIT ?8";
    let (user, room) = (after.user.as_bytes(), room.as_bytes());
    let values = params![partition, room, number(seq), name, after.at_ms, user, after.name, limit];
    let mut statement = connection.prepare_cached(read)?;
    let mut found = statement.query(values)?;
    while let Some(row) = found.next()? {
        let user = (rows::uuid(row, 0)?, row.get(1)?);
        reactions.push(ReactionEntry { user, name: row.get(2)?, at_ms: row.get(3)? });
    }
    Ok(())
}
