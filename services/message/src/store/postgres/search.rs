//! The search of messages.

use std::sync::LazyLock;

use confab_common::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Postgres;
use super::pages::mark_deleted;
use super::rows::{self, NO_MESSAGE, STATE_COLUMNS, one, state_of};
use crate::store::search::{Candidate, IndexPage, NEWEST, Place, ROOMS_AT_ONCE, ReadMessages, SearchStore, Wanted};
use crate::store::{Event, Readers, number};
use crate::words::{Needed, of_room, of_sender};

const CLAIM: &str = "/* claim_unindexed */ SELECT * FROM claim_unindexed($1, $2)";
const INDEX: &str = "/* index_messages */ SELECT index_messages($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const FORGET_CLOSED: &str = "/* forget_closed */ SELECT forget_closed($1)";

const UNINDEXED_SINCE: &str = "/* unindexed_since */ SELECT min(e.created_at)
    FROM partitions p LEFT JOIN search_progress s ON s.partition = p.partition
    CROSS JOIN LATERAL (
        SELECT o.created_at FROM events o WHERE o.partition = p.partition AND o.position > coalesce(s.position, 0)
        ORDER BY o.position LIMIT 1
    ) e
    WHERE p.head > coalesce(s.position, 0)";

const REINDEX: &str = "/* reindex */ UPDATE search_progress SET position = 0";

const ROOMS_OF: &str = "/* rooms_of */ SELECT room_id FROM room_members WHERE user_id = $1 ORDER BY room_id LIMIT $2";

/// The newest messages below a place, of these rooms and with these terms, among a number of the newest messages. One
/// room has an order of its own.
const NEWEST_OF_ALL: &str = "/* newest_messages */ SELECT n.created_at, n.room_id, n.seq, n.partition FROM (
        SELECT * FROM search s WHERE (s.created_at, s.room_id, s.seq) < ($3, $4, $5)
        ORDER BY s.created_at DESC, s.room_id DESC, s.seq DESC LIMIT $6
    ) n WHERE n.terms @@ $1::text::tsquery AND n.room_id = ANY ($2)
    ORDER BY n.created_at DESC, n.room_id DESC, n.seq DESC LIMIT $7";
const NEWEST_OF_ROOM: &str = "/* newest_messages */ SELECT n.created_at, n.room_id, n.seq, n.partition FROM (
        SELECT * FROM search s WHERE s.room_id = ($2::uuid[])[1] AND (s.room_id, s.created_at, s.seq) < (($2::uuid[])[1], $3, $5)
            AND ($4::uuid IS NOT NULL)
        ORDER BY s.room_id DESC, s.created_at DESC, s.seq DESC LIMIT $6
    ) n WHERE n.terms @@ $1::text::tsquery
    ORDER BY n.created_at DESC, n.room_id DESC, n.seq DESC LIMIT $7";
const WITH_TERMS: &str =
    "/* messages_with_terms */ SELECT * FROM messages_with_terms($1::text::tsquery, $2, $3, $4, $5)";

/// The readers $4 are judged in the snapshot of the messages.
static READ_MESSAGES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "/* read_messages */ SELECT l.epoch, 0::bigint, {}, e.partition
        FROM log l LEFT JOIN LATERAL (
            SELECT w.n, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
            FROM unnest($1::integer[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS w (partition, room_id, seq, n)
            JOIN room_heads h ON h.partition = w.partition AND h.room_id = w.room_id AND NOT h.closed
            CROSS JOIN LATERAL ({}) p
            {}
            WHERE p.kind < 3 AND s.deleted_by IS NULL AND ($5 OR (NOT $6 AND NOT h.private) OR EXISTS (
                SELECT 1 FROM room_members m
                WHERE m.partition = w.partition AND m.room_id = w.room_id AND m.user_id = ANY ($4)))
        ) e ON true ORDER BY e.n",
        rows::columns(),
        one("events", "w.partition", "w.room_id", "w.seq"),
        state_of()
    )
});

impl SearchStore for Postgres {
    fn claim_unindexed(&self, holder: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<(u32, u64)>>> {
        async move {
            let rows = self.0.query(CLAIM, &[&holder, &(most as i32)]).await?;
            Ok(rows.iter().map(|row| (row.get::<_, i32>(0) as u32, row.get::<_, i64>(1) as u64)).collect())
        }
        .boxed()
    }

    fn index(&self, page: IndexPage) -> BoxFuture<'_, Result<bool>> {
        async move {
            let messages = &page.messages;
            let rooms = messages.iter().map(|message| message.room).collect::<Vec<_>>();
            let created = messages.iter().map(|message| message.created_at_ms).collect::<Vec<_>>();
            let seqs = messages.iter().map(|message| number(message.seq)).collect::<Vec<_>>();
            let senders = messages.iter().map(|message| message.sender).collect::<Vec<_>>();
            let terms = messages.iter().map(|message| message.terms.as_str()).collect::<Vec<_>>();
            let values: [&(dyn ToSql + Sync); 9] = [
                &(page.partition as i32),
                &number(page.after),
                &number(page.up_to),
                &rooms,
                &created,
                &seqs,
                &senders,
                &terms,
                &page.closed,
            ];
            let rows = self.0.query(INDEX, &values).await?;
            Ok(rows.first().is_some_and(|row| row.get(0)))
        }
        .boxed()
    }

    fn forget_closed(&self, most: u32) -> BoxFuture<'_, Result<bool>> {
        async move {
            let rows = self.0.query(FORGET_CLOSED, &[&i64::from(most)]).await?;
            Ok(rows.first().is_some_and(|row| row.get(0)))
        }
        .boxed()
    }

    fn unindexed_since(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        async { Ok(self.0.query(UNINDEXED_SINCE, &[]).await?.first().and_then(|row| row.get(0))) }.boxed()
    }

    fn reindex(&self) -> BoxFuture<'_, Result<()>> {
        self.0.execute(REINDEX, &[]).map(|done| done.map(drop)).boxed()
    }

    fn rooms_of(&self, user: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        async move {
            let rows = self.0.query(ROOMS_OF, &[&user, &i64::from(most)]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        }
        .boxed()
    }

    fn find_messages(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Candidate>>> {
        async move {
            let (terms, limit) = (tsquery(&wanted), i64::from(wanted.limit));
            let (at_ms, room, seq) = wanted.below.parts();
            let newest = if wanted.rooms.len() == 1 { NEWEST_OF_ROOM } else { NEWEST_OF_ALL };
            let values: [&(dyn ToSql + Sync); 7] =
                [&terms, &wanted.rooms, &at_ms, &room, &seq, &i64::from(NEWEST), &limit];
            let found = self.0.query(newest, &values).await?;
            if found.len() >= wanted.limit as usize {
                return Ok(found.iter().map(candidate).collect());
            }
            let mut candidates = Vec::new();
            for rooms in wanted.rooms.chunks(ROOMS_AT_ONCE) {
                let in_rooms = format!("{terms} & ({})", or(rooms));
                let found = self.0.query(WITH_TERMS, &[&in_rooms, &at_ms, &room, &seq, &limit]).await?;
                candidates.extend(found.iter().map(candidate));
            }
            candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.place));
            candidates.truncate(wanted.limit as usize);
            Ok(candidates)
        }
        .boxed()
    }

    fn read_messages(&self, read: ReadMessages) -> BoxFuture<'_, Result<(Uuid, Vec<Event>)>> {
        async move {
            let partitions = read.messages.iter().map(|((partition, _), _)| *partition as i32).collect::<Vec<_>>();
            let rooms = read.messages.iter().map(|((_, room), _)| *room).collect::<Vec<_>>();
            let seqs = read.messages.iter().map(|(_, seq)| number(*seq)).collect::<Vec<_>>();
            let is_moderator = matches!(read.readers, Readers::Moderator);
            let users = read.readers.users();
            let values: [&(dyn ToSql + Sync); 6] =
                [&partitions, &rooms, &seqs, &users, &is_moderator, &read.members_only];
            let read = async |client: &mut confab_common::pg::Client| {
                let statement = confab_common::pg::prepare(client, &READ_MESSAGES).await?;
                let rows = client.query(&statement, &values).await?;
                let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
                let (epoch, partition) = (first.get(0), rows::FIRST + rows::COUNT);
                let mut events = Vec::with_capacity(rows.len());
                for row in &rows {
                    let partition = row.get::<_, Option<i32>>(partition).unwrap_or_default() as u32;
                    events.extend(rows::event(row, partition)?);
                }
                mark_deleted(client, events.iter_mut()).await?;
                Ok::<_, Error>((epoch, events))
            };
            self.0.run(read).await
        }
        .boxed()
    }
}

fn candidate(row: &Row) -> Candidate {
    let (at_ms, room, seq) = (row.get(0), row.get(1), row.get::<_, i64>(2));
    Candidate { place: Place::new(at_ms, room, seq), room: (row.get::<_, i32>(3) as u32, room), seq: seq as u64 }
}

/// The terms of a search, except those of rooms. Terms have no quotes and no backslashes.
fn tsquery(wanted: &Wanted) -> String {
    let term = |Needed { term, prefix }: &Needed| format!("'{term}'{}", if *prefix { ":*" } else { "" });
    let sender = wanted.sender.map(|sender| format!("'{}'", of_sender(sender)));
    wanted.terms.iter().map(term).chain(sender).collect::<Vec<_>>().join(" & ")
}

fn or(rooms: &[Uuid]) -> String {
    rooms.iter().map(|room| format!("'{}'", of_room(*room))).collect::<Vec<_>>().join(" | ")
}
