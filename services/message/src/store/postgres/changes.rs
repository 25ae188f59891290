//! Changes of messages: their append, the reads of changed messages, and the erasure of deleted ones.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use confab_common::{Error, Result, pg};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::pages::{
    EVENTS_NEWEST_FIRST, EVENTS_OLDEST_FIRST, RIGHT, ROOM, Read, Reads, is_readable, items, of_room, right,
};
use super::rows::{self, NO_MESSAGE, STATE_COLUMNS, one, state_of};
use super::{Column, Postgres, complete, failed, nothing_done};
use crate::store::{
    AppendError, Appended, Body, Change, ChangeStore, Changed, ChangedBetween, Erased, Event, EventData, Limit,
    MAX_CAUGHT_UP, MAX_PINS, MAX_VERSIONS, Outcome, Page, Readers, Refusal, Role, RoomAccess, RoomKey, Version,
    Versions, Window, number,
};

const APPEND: &str = "/* append_changes */ SELECT * FROM change_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// The messages with the keys $1, $2, $3, each with the number of its key.
static MESSAGES: LazyLock<String> = LazyLock::new(|| {
    let columns = rows::columns();
    format!(
        "/* fold */ SELECT NULL::uuid, NULL::bigint, {columns}, e.n
        FROM (
            SELECT asked.n, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
            FROM unnest($1::integer[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS asked (of_partition, of_room, of_seq, n)
            CROSS JOIN LATERAL ({}) p {}
        ) e",
        one("events", "asked.of_partition", "asked.of_room", "asked.of_seq"),
        state_of()
    )
});

pub(super) static CATCH_UP: Reads = Reads::new(|readers| {
    let changed = changed(readers, "$2", &(MAX_CAUGHT_UP + 1).to_string());
    let rows = format!("{} UNION ALL {changed}", items(readers, "ASC"));
    of_room("catch_up", &rows, &MAX_CAUGHT_UP.to_string())
});
pub(super) static CHANGES: Reads = Reads::new(|readers| {
    of_room("changes", &changed(readers, "least($6::bigint - 1, coalesce(h.seq, 0))", "$3::bigint + 1"), "$3")
});
pub(super) static PINS: Reads = Reads::new(|readers| {
    let is_readable = is_readable(readers);
    let rows = format!(
        "SELECT 0 AS part, -s.pinned AS rank, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
        FROM (
            SELECT * FROM message_state
            WHERE (partition, room_id, pinned) > ($1, $5, $2) AND (partition, room_id, pinned) < ($1, $5, $6)
                AND pinned IS NOT NULL AND {is_readable}
            ORDER BY partition DESC, room_id DESC, pinned DESC LIMIT $3
        ) s {}",
        message_of_state()
    );
    of_room("pins", &rows, "$3")
});

/// Returns the join of the message `p` of a state `s`.
fn message_of_state() -> String {
    format!("CROSS JOIN LATERAL ({}) p", one("events", "s.partition", "s.room_id", "s.seq"))
}

/// The rows of messages from $8 up to a `seq` that were changed above $2. They are sought by their revision or by their
/// `seq`, whichever has fewer numbers, so that neither the changes of newer messages nor old messages are scanned. No
/// condition must suggest another index.
fn changed(readers: &Readers, up_to: &str, most: &str) -> String {
    let is_readable = is_readable(readers);
    let by_revision = format!("coalesce(h.seq, 0) - $2::bigint <= {up_to} - $8::bigint");
    format!(
        "SELECT 1 AS part, s.revision AS rank, p.*, {STATE_COLUMNS}, {NO_MESSAGE}
        FROM (
            (SELECT * FROM message_state
            WHERE (partition, room_id, revision) > ($1, $5, $2) AND (partition, room_id) <= ($1, $5)
                AND seq + 0 >= $8 AND seq + 0 <= {up_to} AND {by_revision} AND {is_readable}
            ORDER BY partition, room_id, revision LIMIT {most})
            UNION ALL
            (SELECT * FROM message_state
            WHERE (partition, room_id, seq) >= ($1, $5, $8) AND (partition, room_id, seq) <= ($1, $5, {up_to})
                AND revision + 0 > $2 AND NOT {by_revision} AND {is_readable}
            ORDER BY revision LIMIT {most})
        ) s {}",
        message_of_state()
    )
}

/// The author of the message $2, the role of the reader, and the newest texts.
pub(super) static VERSIONS: Reads = Reads::new(|readers| {
    let (is_readable, of_room) = (is_readable(readers), ["$1", "$5"]);
    let [message, state, edit] = [("events", "$2"), ("message_state", "m.seq"), ("events", "d.seq")]
        .map(|(table, seq)| one(table, of_room[0], of_room[1], seq));
    format!(
        "/* versions */ SELECT m.sender_id, (
                SELECT r.role FROM room_members r WHERE r.partition = $1 AND r.room_id = $5 AND r.user_id = ANY ($7) LIMIT 1
            ), v.seq, v.body, v.created_at, {RIGHT}
        FROM log l LEFT JOIN {ROOM}
        LEFT JOIN LATERAL ({message} AND f.kind < 3 AND {is_readable}) m ON true
        LEFT JOIN LATERAL ({state}) s ON true
        LEFT JOIN LATERAL (
            SELECT m.seq, m.body, m.created_at
            UNION ALL
            SELECT e.seq, e.body, e.created_at FROM (
                SELECT seq FROM message_edits WHERE partition = $1 AND room_id = $5 AND target = m.seq
                ORDER BY partition DESC, room_id DESC, target DESC, seq DESC LIMIT {MAX_VERSIONS}
            ) d CROSS JOIN LATERAL ({edit}) e
        ) v ON v.seq IS NOT NULL AND s.deleted_at IS NULL
        ORDER BY v.seq"
    )
    // The statement has only four parameters.
    .replace("$5", "$3")
    .replace("$7", "$4")
});

const TO_ERASE: &str = "/* erase_deleted */ SELECT partition, room_id, seq FROM message_state WHERE to_erase
    ORDER BY deleted_at LIMIT $1";
const ERASE: &str = "/* erase_deleted */ SELECT erase_deleted($1, $2, $3, $4)";

/// Appends a batch of changes.
pub async fn append(
    client: &pg::Client,
    batch: &[Arc<EventData>],
    created_at_ms: i64,
) -> Result<Appended, AppendError> {
    // Preparing changes nothing, so a failure here is not an unknown outcome.
    let statement = pg::prepare(client, APPEND).await.map_err(nothing_done)?;
    let bodies = batch.iter().map(|data| data.body.to_text()).collect::<Result<Vec<_>>>()?;
    let asked = batch.iter().map(|data| data.change.ok_or_else(mixed)).collect::<Result<Vec<_>>>()?;
    let column = Column(batch);
    let rows = client
        .query(
            &statement,
            &[
                &column.of(|data| data.partition as i32),
                &column.of(|data| data.room),
                &column.of(|data| data.id),
                &column.of(|data| data.sender),
                &column.of(|data| data.client_id.as_str()),
                &bodies,
                &created_at_ms,
                &asked.iter().map(|change| number(change.target)).collect::<Vec<_>>(),
                &asked.iter().map(|change| change.op as i16).collect::<Vec<_>>(),
                &asked.iter().map(|change| change.target_id).collect::<Vec<_>>(),
                &asked.iter().map(|change| change.unchanged_since.map(number)).collect::<Vec<_>>(),
                &asked.iter().map(|change| change.moderator).collect::<Vec<_>>(),
                &column.of(|data| data.body.content.as_str()),
                &column.of(|data| data.body.sender_username.as_str()),
                &asked.iter().map(|change| change.keeps_text).collect::<Vec<_>>(),
                &column.of(|data| Some(data.body.data.as_str()).filter(|data| !data.is_empty())),
            ],
        )
        .await
        .map_err(failed)?;
    if rows.len() != batch.len() {
        return Err(Error::internal(format_args!("{} outcomes of {} changes", rows.len(), batch.len())).into());
    }
    let epoch = rows.first().map_or(Uuid::nil(), |row| row.get(0));
    let outcomes = rows.iter().zip(batch).map(|(row, data)| outcome(row, data, created_at_ms));
    complete(client, epoch, outcomes.collect::<Result<_>>()?).await
}

pub fn mixed() -> Error {
    Error::internal("a batch has changes and other events")
}

fn outcome(row: &Row, data: &Arc<EventData>, created_at_ms: i64) -> Result<Outcome> {
    let numbered =
        |data, created_at_ms| Event::new(data, row.get::<_, i64>(2) as u64, row.get::<_, i64>(3) as u64, created_at_ms);
    Ok(match row.get(1) {
        "appended" => Outcome::Appended(numbered(data.clone(), created_at_ms)),
        "repeated" => {
            let change = data.change.map(|change| Change::new(change.target, change.op));
            let body = Body::from_text(row.get(5))?;
            let first = EventData { id: row.get(4), body, change, ..EventData::clone(data) };
            Outcome::Repeated(numbered(Arc::new(first), row.get(6)))
        }
        "unchanged" => Outcome::unchanged(data),
        "hidden" => Outcome::Hidden,
        verdict => Outcome::Refused(Refusal::parse(verdict)?),
    })
}

/// Gives outcomes the messages that they need, in their present state.
pub async fn give_messages(client: &pg::Client, outcomes: &mut [Outcome]) -> Result<()> {
    // The reactions to a message share it.
    let mut needed = BTreeMap::<_, Vec<_>>::new();
    for (n, outcome) in outcomes.iter().enumerate() {
        if let Some(message) = outcome.needed() {
            needed.entry(message).or_default().push(n);
        }
    }
    let needed = needed.into_iter().collect::<Vec<_>>();
    if needed.is_empty() {
        return Ok(());
    }
    let partitions = needed.iter().map(|(((partition, _), _), _)| *partition as i32).collect::<Vec<_>>();
    let rooms = needed.iter().map(|(((_, room), _), _)| *room).collect::<Vec<_>>();
    let seqs = needed.iter().map(|((_, seq), _)| number(*seq)).collect::<Vec<_>>();
    let rows = client.query(&pg::prepare(client, &MESSAGES).await?, &[&partitions, &rooms, &seqs]).await?;
    for row in rows {
        let n = row.get::<_, i64>(rows::FIRST + rows::COUNT) as usize;
        let (((partition, _), _), of) = &needed[n - 1];
        if let Some(message) = rows::event(&row, *partition)? {
            of.iter().for_each(|outcome| outcomes[*outcome].give(message.clone()));
        }
    }
    Ok(())
}

impl ChangeStore for Postgres {
    fn read_events(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        self.window([&EVENTS_OLDEST_FIRST, &EVENTS_NEWEST_FIRST], room, window, limit, readers).boxed()
    }

    fn catch_up(
        &self,
        room: RoomKey,
        after: u64,
        from: u64,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        let between = ChangedBetween { after, from, up_to: u64::MAX };
        self.changed(&CATCH_UP, room, between, limit, readers).boxed()
    }

    fn changes(
        &self,
        room: RoomKey,
        between: ChangedBetween,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        self.changed(&CHANGES, room, between, limit, readers).boxed()
    }

    fn versions(
        &self,
        (partition, room): RoomKey,
        seq: u64,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Versions, RoomAccess)>> {
        async move {
            let users = readers.users();
            let rows = self.0.query(VERSIONS.of(&readers), &[&(partition as i32), &number(seq), &room, &users]).await?;
            let first = rows.first().ok_or_else(|| Error::internal("the log has no row"))?;
            let role = first.get::<_, Option<i16>>(1).map(|role| Role::try_from(i64::from(role))).transpose()?;
            let author = first.get::<_, Option<Uuid>>(0);
            let mut versions = Vec::with_capacity(rows.len());
            for row in &rows {
                if let (Some(author), Some(revision)) = (author, row.get::<_, Option<i64>>(2)) {
                    let body = Body::from_text(row.get(3))?;
                    let by = (author, body.sender_username);
                    let (revision, at_ms) = (revision as u64, row.get(4));
                    versions.push(Version { revision, content: body.content, at_ms, by });
                }
            }
            versions.drain(..versions.len().saturating_sub(MAX_VERSIONS));
            Ok((Versions { author, role, versions }, right(first, 5)))
        }
        .boxed()
    }

    fn pins(&self, (partition, room): RoomKey, readers: Readers) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        async move {
            let users = readers.users();
            let parameters: [&(dyn ToSql + Sync); 7] =
                [&(partition as i32), &0_i64, &i64::from(MAX_PINS), &i64::MAX, &room, &i64::MAX, &users];
            let read = self.read(PINS.of(&readers), &parameters, partition).await?;
            Ok((read.page, read.access))
        }
        .boxed()
    }

    fn erase_deleted(&self, messages: u32, edits: u32) -> BoxFuture<'_, Result<Erased>> {
        async move {
            let mut erased = Erased::default();
            let rows = self.0.query(TO_ERASE, &[&i64::from(messages)]).await?;
            if rows.is_empty() {
                return Ok(erased);
            }
            for row in &rows {
                let key: (i32, Uuid, i64) = (row.get(0), row.get(1), row.get(2));
                let done = self.0.query(ERASE, &[&key.0, &key.1, &key.2, &(edits as i32)]).await?;
                erased.events += done.first().map_or(0, |row| row.get::<_, i64>(0)) as u64;
            }
            erased.more = !self.0.query(TO_ERASE, &[&1_i64]).await?.is_empty();
            Ok(erased)
        }
        .boxed()
    }
}

impl Postgres {
    async fn changed(
        &self,
        statement: &'static Reads,
        (partition, room): RoomKey,
        ChangedBetween { after, from, up_to }: ChangedBetween,
        limit: Limit,
        readers: Readers,
    ) -> Result<(Page, Changed, RoomAccess)> {
        let (events, bytes, users) = (i64::from(limit.events), i64::from(limit.bytes), readers.users());
        let below = number(up_to).saturating_add(1);
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&(partition as i32), &number(after), &events, &bytes, &room, &below, &users, &number(from)];
        let Read { page, changed, access } = self.read(statement.of(&readers), &parameters, partition).await?;
        Ok((page, changed, access))
    }
}
