//! Reactions: their append, and the reads of who has reacted.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::{Error, Result, pg};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::changes::mixed;
use super::pages::{RIGHT, ROOM, Reads, is_readable, right};
use super::rows::one;
use super::{Column, Postgres, complete, failed, nothing_done};
use crate::store::{
    AppendError, Appended, Body, Event, EventData, MAX_NAMES, Outcome, OwnReactions, Reacted, ReactionEntry,
    ReactionList, ReactionPlace, ReactionStore, Readers, Refusal, RoomAccess, RoomKey, client_id, number,
};

const APPEND: &str =
    "/* append_reactions */ SELECT * FROM append_reactions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// The message $2, and the reactions to it after the time $4, the user $6 and the name $8; each name is read in the
/// order of its index.
static REACTIONS: Reads = Reads::new(|readers| {
    let is_readable = is_readable(readers);
    let [message, state] = ["events", "message_state"].map(|table| one(table, "$1", "$5", "$2"));
    format!(
        "/* reactions */ SELECT m.seq IS NOT NULL, r.user_id, r.username, r.name, r.at, {RIGHT}
        FROM log l LEFT JOIN {ROOM}
        LEFT JOIN LATERAL ({message} AND f.kind < 3 AND {is_readable}) m ON true
        LEFT JOIN LATERAL ({state}) s ON m.seq IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT o.* FROM jsonb_array_elements(coalesce(s.reactions, '[]')::jsonb) AS n (item)
            CROSS JOIN LATERAL (
                SELECT * FROM reactions
                WHERE partition = $1 AND room_id = $5 AND seq = $2 AND name = n.item ->> 'name'
                    AND (at, user_id) >= ($4, $6) AND (at, user_id, name) > ($4, $6, $8)
                ORDER BY partition, room_id, seq, name, at, user_id LIMIT $3
            ) o
            WHERE $9::text IS NULL OR n.item ->> 'name' = $9
            ORDER BY o.at, o.user_id, o.name LIMIT $3
        ) r ON true
        ORDER BY r.at, r.user_id, r.name"
    )
});

/// The names of the user $3 for the messages $4. Sought in the order of the primary key.
static OWN: Reads = Reads::new(|readers| {
    let is_readable = is_readable(readers);
    format!(
        "/* own_reactions */ SELECT r.seq, r.name, {RIGHT}
        FROM log l LEFT JOIN {ROOM}
        LEFT JOIN LATERAL (
            SELECT o.seq, o.name FROM unnest($4::bigint[]) AS asked (seq) CROSS JOIN LATERAL (
                SELECT * FROM reactions
                WHERE (partition, room_id, seq, user_id) >= ($1, $5, asked.seq, $3)
                    AND (partition, room_id, seq, user_id) <= ($1, $5, asked.seq, $3)
                ORDER BY partition, room_id, seq, user_id, name LIMIT {MAX_NAMES}
            ) o WHERE {is_readable}
        ) r ON true
        ORDER BY r.seq, r.name"
    )
    // The statement has only five parameters.
    .replace("$5", "$2")
    .replace("$7", "$5")
});

/// Appends a batch of reactions.
pub async fn append(
    client: &pg::Client,
    batch: &[Arc<EventData>],
    created_at_ms: i64,
) -> Result<Appended, AppendError> {
    // Preparing changes nothing, so a failure here is not an unknown outcome.
    let statement = pg::prepare(client, APPEND).await.map_err(nothing_done)?;
    let asked = batch.iter().map(|data| data.change.ok_or_else(mixed)).collect::<Result<Vec<_>>>()?;
    let reacted =
        batch.iter().map(|data| data.body.reacted.first().ok_or_else(mixed)).collect::<Result<Vec<&Reacted>>>()?;
    let column = Column(batch);
    let rows = client
        .query(
            &statement,
            &[
                &column.of(|data| data.partition as i32),
                &column.of(|data| data.room),
                // A repeat sets its state again, as another event.
                &column.of(|_| Uuid::now_v7()),
                &column.of(|data| data.sender),
                &column.of(|data| data.body.sender_username.as_str()),
                &created_at_ms,
                &asked.iter().map(|change| number(change.target)).collect::<Vec<_>>(),
                &asked.iter().map(|change| change.target_id).collect::<Vec<_>>(),
                &reacted.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
                &reacted.iter().map(|it| it.on).collect::<Vec<_>>(),
                &(MAX_NAMES as i32),
            ],
        )
        .await
        .map_err(failed)?;
    if rows.len() != batch.len() {
        return Err(Error::internal(format_args!("{} outcomes of {} reactions", rows.len(), batch.len())).into());
    }
    let epoch = rows.first().map_or(Uuid::nil(), |row| row.get(0));
    let mut events = HashMap::new();
    for (n, (row, data)) in (1_i64..).zip(rows.iter().zip(batch)) {
        if let Some(body) = row.get::<_, Option<&str>>(5) {
            let (id, body) = (row.get(6), Body::from_text(body)?);
            let data = EventData { id, client_id: client_id(None, id), body, ..EventData::clone(data) };
            let (position, seq) = (row.get::<_, i64>(2) as u64, row.get::<_, i64>(3) as u64);
            events.insert(n, Event::new(Arc::new(data), position, seq, created_at_ms));
        }
    }
    let outcomes = rows.iter().zip(batch).map(|(row, data)| {
        let own = || row.get::<_, Option<Vec<String>>>(7).unwrap_or_default();
        Ok(match row.get(1) {
            "appended" => {
                let event = row.get::<_, Option<i64>>(4).and_then(|first| events.get(&first));
                let event = event.ok_or_else(|| Error::internal("a reaction without its event"))?;
                Outcome::Reacted(event.clone(), own())
            }
            "unchanged" => Outcome::unmoved(data, own()),
            "hidden" => Outcome::Hidden,
            verdict => Outcome::Refused(Refusal::parse(verdict)?),
        })
    });
    complete(client, epoch, outcomes.collect::<Result<_>>()?).await
}

impl ReactionStore for Postgres {
    fn reactions(
        &self,
        (partition, room): RoomKey,
        seq: u64,
        name: Option<String>,
        after: ReactionPlace,
        limit: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(ReactionList, RoomAccess)>> {
        async move {
            let (users, limit) = (readers.users(), i64::from(limit));
            let parameters: [&(dyn ToSql + Sync); 9] = [
                &(partition as i32),
                &number(seq),
                &limit,
                &after.at_ms,
                &room,
                &after.user,
                &users,
                &after.name,
                &name,
            ];
            let rows = self.0.query(REACTIONS.of(&readers), &parameters).await?;
            let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
            let entry = |row: &tokio_postgres::Row| {
                let user = row.get::<_, Option<Uuid>>(1)?;
                Some(ReactionEntry { user: (user, row.get(2)), name: row.get(3), at_ms: row.get(4) })
            };
            let list = ReactionList { exists: first.get(0), reactions: rows.iter().filter_map(entry).collect() };
            Ok((list, right(first, 5)))
        }
        .boxed()
    }

    fn own_reactions(
        &self,
        (partition, room): RoomKey,
        user: Uuid,
        seqs: Vec<u64>,
    ) -> BoxFuture<'_, Result<(OwnReactions, RoomAccess)>> {
        async move {
            let readers = Readers::Users(vec![user]);
            let (users, seqs) = (readers.users(), seqs.into_iter().map(number).collect::<Vec<_>>());
            let parameters: [&(dyn ToSql + Sync); 5] = [&(partition as i32), &room, &user, &seqs, &users];
            let rows = self.0.query(OWN.of(&readers), &parameters).await?;
            let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
            let name = |row: &tokio_postgres::Row| Some((row.get::<_, Option<i64>>(0)? as u64, row.get(1)));
            Ok((rows.iter().filter_map(name).collect(), right(first, 2)))
        }
        .boxed()
    }
}
