//! Rooms in Postgres. Every call except a search is one statement, so each is one transaction in one round trip.

mod acquaintances;
mod members;
mod outbox;

use confab_common::pg::{Client, Pool, PostgresConfig, prepare, violates};
use confab_common::{Code, Error, Result, Secret};
use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Position, Role, Room, RoomEvent, RoomStore, SEARCH_BOUNDS, SearchBounds, Seen, Stored, User, name_taken,
    newest_first, pieces, search_took_too_long, too_many_rooms,
};
use outbox::values;

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Maximum concurrent searches, each with a connection; at most a quarter of the pool.
const SEARCHES: usize = 2;

pub struct PostgresStore {
    pool: Pool,
    searches: usize,
    pub(super) bounds: SearchBounds,
    max_rooms: u32,
}

impl PostgresStore {
    pub async fn open(url: &Secret, config: &PostgresConfig) -> anyhow::Result<Self> {
        let pool = Pool::open(url, "room", embedded::migrations::runner(), config).await?;
        let searches = (config.postgres_connections / 4).clamp(1, SEARCHES);
        Ok(Self { pool, searches, bounds: SEARCH_BOUNDS, max_rooms: 0 })
    }

    /// Sets the maximum number of rooms of one user; 0 means no limit.
    pub fn with_max_rooms(self, max_rooms: u32) -> Self {
        Self { max_rooms, ..self }
    }

    /// Returns the maximum as a parameter; without a limit, the statements count nothing.
    fn maximum(&self) -> Option<i64> {
        Some(i64::from(self.max_rooms)).filter(|maximum| *maximum > 0)
    }

    /// Runs a statement that may find a name taken, and returns its rows.
    async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.pool.run(async |client| client.query(&prepare(client, sql).await?, values).await.map_err(named)).await
    }

    /// Returns the number of rows changed.
    async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.pool.run(async |client| client.execute(&prepare(client, sql).await?, values).await.map_err(named)).await
    }

    async fn query<T>(&self, sql: &str, values: &[&(dyn ToSql + Sync)], row: fn(&Row) -> T) -> Result<Vec<T>> {
        Ok(self.pool.query(sql, values).await?.iter().map(row).collect())
    }
}

fn named(error: tokio_postgres::Error) -> Error {
    if violates(&error, "rooms_name") { name_taken() } else { error.into() }
}

/// Converts the error of a search: a statement that the server cancelled took too long.
fn bounded(error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::QUERY_CANCELED) { search_took_too_long() } else { error.into() }
}

fn room(row: &Row) -> Room {
    Room {
        id: row.get(0),
        name: row.get(1),
        description: row.get(2),
        creator: User { id: row.get(3), username: row.get(4) },
        created_at_ms: row.get(5),
        revision: row.get(6),
        private: row.get(7),
    }
}

fn seen(row: &Row) -> Seen {
    Seen { room: room(row), role: row.get::<_, Option<i16>>(8).map(Role::of) }
}

fn stored(row: &Row) -> Stored {
    Stored { room: room(row), folded_name: row.get(8), search: row.get(9) }
}

// A trigger adds the owner and the opening. A rejected creation does not use up its id. A repeat counts nothing.
const CREATE: &str = "/* create */
    WITH place AS MATERIALIZED (
        SELECT EXISTS (SELECT 1 FROM room_ids WHERE id = $1::uuid)
            OR coalesce(has_place($6::uuid, $1::uuid, $11::bigint), true) AS free
    ), fresh AS (
        INSERT INTO room_ids (id) SELECT $1::uuid FROM place WHERE free ON CONFLICT (id) DO NOTHING RETURNING id
    ), made AS (
        INSERT INTO rooms (
            id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision, private)
        SELECT id, $2, $3, $4, $5, $6::uuid, $7, $8::bigint, $9::bigint, $10::boolean FROM fresh RETURNING id
    )
    SELECT EXISTS (SELECT 1 FROM made), free FROM place";

const GET: &str = "/* get */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = $2::uuid)
    FROM rooms WHERE id = $1";

const VISIBLE: &str = "/* visible */
    SELECT id FROM rooms
    WHERE id = ANY($1) AND (NOT private OR EXISTS (SELECT FROM members WHERE room_id = rooms.id AND user_id = $2))";

// Both parts end at the limit, and neither reads private rooms of other users: OFFSET 0 keeps Postgres from joining the
// user's memberships with all rooms.
const LIST: &str = "/* list */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = $4::uuid)
    FROM (
        (SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private FROM rooms
         WHERE NOT private AND (created_at_ms, id) < ($1, $2) ORDER BY created_at_ms DESC, id DESC LIMIT $3)
        UNION ALL
        (SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private
         FROM members CROSS JOIN LATERAL (
             SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private FROM rooms
             WHERE rooms.id = members.room_id AND private OFFSET 0) own
         WHERE user_id = $4::uuid AND (created_at_ms, id) < ($1, $2)
         ORDER BY created_at_ms DESC, id DESC LIMIT $3)
    ) rooms
    ORDER BY created_at_ms DESC, id DESC LIMIT $3";

// strpos, unlike LIKE, takes the query literally: no character has a special meaning.
const SEARCH_NEWEST: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = newest.id AND user_id = $5::uuid)
    FROM (
        SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, search FROM rooms
        WHERE NOT private AND (created_at_ms, id) < ($1, $2) ORDER BY created_at_ms DESC, id DESC LIMIT $6::bigint) newest
    WHERE strpos(search, $4) > 0 ORDER BY created_at_ms DESC, id DESC LIMIT $3";

const MORE: &str = "/* search */
    SELECT EXISTS (
        SELECT 1 FROM rooms WHERE NOT private AND (created_at_ms, id) < ($1, $2)
        ORDER BY created_at_ms DESC, id DESC OFFSET $3::bigint)";

// Always uses rooms_search, independently of the statistics: with `+ 0` and the cast, no other index fits.
const SEARCH_INDEXED: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = $5::uuid)
    FROM rooms
    WHERE search_pieces(search) COLLATE \"C\" @> $6::text[] AND strpos(search, $4) > 0 AND private::integer = 0
        AND (created_at_ms + 0, id) < ($1, $2)
    ORDER BY created_at_ms + 0 DESC, id DESC LIMIT $3";

const SEARCH_OWN: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, role
    FROM members CROSS JOIN LATERAL (
        SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, search FROM rooms
        WHERE rooms.id = members.room_id AND private OFFSET 0) own
    WHERE user_id = $5::uuid AND strpos(search, $4) > 0 AND (created_at_ms, id) < ($1, $2)
    ORDER BY created_at_ms DESC, id DESC LIMIT $3";

const BEYOND_ASCII: &str = "/* beyond_ascii */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, folded_name, search
    FROM rooms
    WHERE id > $1 AND octet_length(name || description) > char_length(name || description) ORDER BY id LIMIT $2";

const REFOLD_SEARCH: &str = "/* refold */ UPDATE rooms SET search = $3 WHERE id = $1 AND revision = $2";

const REFOLD_NAME: &str = "/* refold */ UPDATE rooms SET folded_name = $3 WHERE id = $1 AND revision = $2";

// An unchanged name may keep the compared form of an earlier release.
const UPDATE: &str = "/* update */
    WITH changed AS (
        UPDATE rooms SET name = $10, folded_name = CASE WHEN name = $10 THEN folded_name ELSE $11 END,
                         description = $12, search = $13, private = $14, revision = $3::bigint
        WHERE id = $2::uuid AND revision = $3::bigint - 1 RETURNING id)
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room, access)
    SELECT $1::uuid, id, $3, $4::uuid, $5, $6, $7, $8::boolean, $9 FROM changed";

const DELETE: &str = "/* delete */
    WITH gone AS (
        DELETE FROM rooms WHERE id = $2::uuid AND revision = $3::bigint - 1 RETURNING id)
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room, access)
    SELECT $1::uuid, id, $3, $4::uuid, $5, $6, $7, $8::boolean, $9 FROM gone";

impl RoomStore for PostgresStore {
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>> {
        async move {
            let Room { id, name, description, creator, created_at_ms, revision, private } = &room;
            let (folded, search) = (room.folded_name(), room.search());
            let User { id: owner, username } = creator;
            let maximum = self.maximum();
            let values: [&(dyn ToSql + Sync); 11] =
                [id, name, &folded, description, &search, owner, username, created_at_ms, revision, private, &maximum];
            match self.rows(CREATE, &values).await?.first().map(|row| (row.get(0), row.get(1))) {
                Some((_, false)) => Err(too_many_rooms(self.max_rooms)),
                outcome => Ok(outcome == Some((true, true))),
            }
        }
        .boxed()
    }

    fn get(&self, id: Uuid, reader: Option<Uuid>) -> BoxFuture<'_, Result<Option<Seen>>> {
        async move { Ok(self.query(GET, &[&id, &reader], seen).await?.pop()) }.boxed()
    }

    fn visible(&self, ids: Vec<Uuid>, user: Uuid) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        async move { self.query(VISIBLE, &[&ids, &user], |row| row.get(0)).await }.boxed()
    }

    fn list(&self, reader: Option<Uuid>, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Seen>>> {
        async move { self.query(LIST, &[&below.created_at_ms, &below.id, &i64::from(limit), &reader], seen).await }
            .boxed()
    }

    fn search(
        &self,
        reader: Option<Uuid>,
        query: String,
        below: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Seen>>> {
        async move {
            let (page, pieces) = (i64::from(limit), pieces::of(&query).into_iter().collect::<Vec<_>>());
            let (time, rooms) = (self.bounds.time.as_millis(), i64::from(self.bounds.rooms));
            let Position { created_at_ms, id } = &below;
            let values: [&(dyn ToSql + Sync); 5] = [created_at_ms, id, &page, &query, &reader];
            let with_rooms: [&(dyn ToSql + Sync); 6] = [created_at_ms, id, &page, &query, &reader, &rooms];
            let with_pieces: [&(dyn ToSql + Sync); 6] = [created_at_ms, id, &page, &query, &reader, &pieces];
            let search = async |client: &mut Client| {
                let transaction = client.transaction().await?;
                // Pools disable bitmap scans, and a GIN index supports no other kind.
                let settings = format!("SET LOCAL statement_timeout = {time}; SET LOCAL enable_bitmapscan = on");
                transaction.batch_execute(&settings).await?;
                // Common text occurs among the newest rooms; the index would return too many matches.
                let begun = Instant::now();
                let newest = transaction.prepare_cached(SEARCH_NEWEST).await?;
                let mut found = transaction.query(&newest, &with_rooms).await?;
                // All statements together have the time limit of one search; 0 would mean no limit.
                let left = || {
                    format!("SET LOCAL statement_timeout = {}", time.saturating_sub(begun.elapsed().as_millis()).max(1))
                };
                let is_more = async || {
                    transaction.batch_execute(&left()).await?;
                    let more = transaction.prepare_cached(MORE).await?;
                    transaction.query_one(&more, &[created_at_ms, id, &rooms]).await?.try_get(0)
                };
                if (found.len() as i64) < page && is_more().await? {
                    transaction.batch_execute(&left()).await?;
                    let indexed = transaction.prepare_cached(SEARCH_INDEXED).await?;
                    found = transaction.query(&indexed, &with_pieces).await?;
                }
                if reader.is_some() {
                    transaction.batch_execute(&left()).await?;
                    let own = transaction.prepare_cached(SEARCH_OWN).await?;
                    found.extend(transaction.query(&own, &values).await?);
                }
                transaction.commit().await?;
                Ok(found)
            };
            let found = self.pool.run(async |client| search(client).await.map_err(bounded)).await?;
            Ok(newest_first(found.iter().map(seen).collect(), limit))
        }
        .boxed()
    }

    fn searches(&self) -> usize {
        self.searches
    }

    fn beyond_ascii(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>> {
        async move { self.query(BEYOND_ASCII, &[&after, &i64::from(limit)], stored).await }.boxed()
    }

    fn refold(&self, room: Room) -> BoxFuture<'_, Result<()>> {
        async move {
            self.execute(REFOLD_SEARCH, &[&room.id, &room.revision, &room.search()]).await?;
            match self.execute(REFOLD_NAME, &[&room.id, &room.revision, &room.folded_name()]).await {
                Err(error) if error.code != Code::RoomNameTaken => Err(error),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn update(&self, room: Room, event: RoomEvent) -> BoxFuture<'_, Result<bool>> {
        async move {
            let (folded, search) = (room.folded_name(), room.search());
            let mut values = values(&event).to_vec();
            values.extend([&room.name as &(dyn ToSql + Sync), &folded, &room.description, &search, &room.private]);
            Ok(self.execute(UPDATE, &values).await? == 1)
        }
        .boxed()
    }

    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.execute(DELETE, &values(&event)).await? == 1) }.boxed()
    }
}
