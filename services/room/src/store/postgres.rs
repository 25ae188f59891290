//! Rooms in Postgres. Every call except a search is one statement, so each is one transaction in one round trip.

use confab_common::pg::{Client, Pool, PostgresConfig, prepare, violates};
use confab_common::{Code, Error, Result, Secret};
use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Owed, Position, Room, RoomEvent, SEARCH_BOUNDS, SearchBounds, Store, Stored, User, pieces, search_took_too_long,
};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Maximum concurrent searches, each with a connection; at most a quarter of the pool.
const SEARCHES: usize = 2;

pub struct PostgresStore {
    pool: Pool,
    searches: usize,
    pub(super) bounds: SearchBounds,
}

impl PostgresStore {
    pub async fn open(url: &Secret, config: &PostgresConfig) -> anyhow::Result<Self> {
        let pool = Pool::open(url, "room", embedded::migrations::runner(), config).await?;
        Ok(Self { pool, searches: (config.postgres_connections / 4).clamp(1, SEARCHES), bounds: SEARCH_BOUNDS })
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
    if violates(&error, "rooms_name") {
        Error::new(Code::RoomNameTaken, "a public room with this name exists")
    } else {
        error.into()
    }
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
        owner: User { id: row.get(3), username: row.get(4) },
        created_at_ms: row.get(5),
        revision: row.get(6),
    }
}

fn stored(row: &Row) -> Stored {
    Stored { room: room(row), folded_name: row.get(7), search: row.get(8) }
}

fn owed(row: &Row) -> Owed {
    let event = RoomEvent {
        id: row.get(0),
        room_id: row.get(1),
        number: row.get(2),
        sender: User { id: row.get(3), username: row.get(4) },
        event: row.get(5),
        data: row.get(6),
        closes_room: row.get(7),
    };
    Owed { event, room_gone: row.get(8) }
}

const CREATE: &str = "/* create */
    WITH fresh AS (
        INSERT INTO room_ids (id) VALUES ($1::uuid) ON CONFLICT (id) DO NOTHING RETURNING id)
    INSERT INTO rooms (id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision)
    SELECT id, $2, $3, $4, $5, $6::uuid, $7, $8::bigint, $9::bigint FROM fresh";

const GET: &str = "/* get */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms WHERE id = $1";

const LIST: &str = "/* list */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms
    WHERE (created_at_ms, id) < ($1, $2) ORDER BY created_at_ms DESC, id DESC LIMIT $3";

// strpos, unlike LIKE, takes the query literally: no character has a special meaning.
const SEARCH_NEWEST: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM (
        SELECT * FROM rooms WHERE (created_at_ms, id) < ($1, $2) ORDER BY created_at_ms DESC, id DESC LIMIT $5::bigint) newest
    WHERE strpos(search, $4) > 0 ORDER BY created_at_ms DESC, id DESC LIMIT $3";

const MORE: &str = "/* search */
    SELECT EXISTS (SELECT 1 FROM rooms WHERE (created_at_ms, id) < ($1, $2) ORDER BY created_at_ms DESC, id DESC OFFSET $3::bigint)";

// Always uses rooms_search, independently of the statistics: with `+ 0`, no other index fits.
const SEARCH_INDEXED: &str = "/* search */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision FROM rooms
    WHERE search_pieces(search) COLLATE \"C\" @> $5::text[] AND strpos(search, $4) > 0 AND (created_at_ms + 0, id) < ($1, $2)
    ORDER BY created_at_ms + 0 DESC, id DESC LIMIT $3";

const BEYOND_ASCII: &str = "/* beyond_ascii */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, folded_name, search FROM rooms
    WHERE id > $1 AND octet_length(name || description) > char_length(name || description) ORDER BY id LIMIT $2";

const REFOLD_SEARCH: &str = "/* refold */ UPDATE rooms SET search = $3 WHERE id = $1 AND revision = $2";

const REFOLD_NAME: &str = "/* refold */ UPDATE rooms SET folded_name = $3 WHERE id = $1 AND revision = $2";

// An unchanged name may keep the compared form of an earlier release.
const UPDATE: &str = "/* update */
    WITH changed AS (
        UPDATE rooms SET name = $9, folded_name = CASE WHEN name = $9 THEN folded_name ELSE $10 END, description = $11, search = $12, revision = $3::bigint
        WHERE id = $2::uuid AND revision = $3::bigint - 1 RETURNING id)
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room)
    SELECT $1::uuid, id, $3, $4::uuid, $5, $6, $7, $8::boolean FROM changed";

const DELETE: &str = "/* delete */
    WITH gone AS (
        DELETE FROM rooms WHERE id = $2::uuid AND revision = $3::bigint - 1 RETURNING id)
    INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room)
    SELECT $1::uuid, id, $3, $4::uuid, $5, $6, $7, $8::boolean FROM gone";

const OLDEST: &str = "/* oldest */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox WHERE room_id = $1 ORDER BY number LIMIT 1";

const CLOSING: &str = "/* closing */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox WHERE room_id = $1 AND closes_room";

const OLDEST_OF_ROOMS: &str = "/* oldest_of_rooms */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id)
    FROM outbox
    WHERE room_id > $1 AND number = (SELECT min(other.number) FROM outbox other WHERE other.room_id = outbox.room_id)
    ORDER BY room_id LIMIT $2";

const REMOVE_EVENTS: &str = "/* settle */ DELETE FROM outbox WHERE id = ANY($1)";

impl Store for PostgresStore {
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>> {
        async move {
            let Room { id, name, description, owner, created_at_ms, revision } = &room;
            let (folded, search) = (room.folded_name(), room.search());
            let values: [&(dyn ToSql + Sync); 9] =
                [id, name, &folded, description, &search, &owner.id, &owner.username, created_at_ms, revision];
            Ok(self.execute(CREATE, &values).await? == 1)
        }
        .boxed()
    }

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<Room>>> {
        async move { Ok(self.query(GET, &[&id], room).await?.pop()) }.boxed()
    }

    fn list(&self, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>> {
        async move { self.query(LIST, &[&below.created_at_ms, &below.id, &i64::from(limit)], room).await }.boxed()
    }

    fn search(&self, query: String, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>> {
        async move {
            let (limit, pieces) = (i64::from(limit), pieces::of(&query).into_iter().collect::<Vec<_>>());
            let (time, rooms) = (self.bounds.time.as_millis(), i64::from(self.bounds.rooms));
            let search = async |client: &mut Client| {
                let transaction = client.transaction().await?;
                // Pools disable bitmap scans, and a GIN index supports no other kind.
                let settings = format!("SET LOCAL statement_timeout = {time}; SET LOCAL enable_bitmapscan = on");
                transaction.batch_execute(&settings).await?;
                // Common text occurs among the newest rooms; the index would return too many matches.
                let begun = Instant::now();
                let newest = transaction.prepare_cached(SEARCH_NEWEST).await?;
                let mut found =
                    transaction.query(&newest, &[&below.created_at_ms, &below.id, &limit, &query, &rooms]).await?;
                // All statements together have the time limit of one search; 0 would mean no limit.
                let left = || {
                    format!("SET LOCAL statement_timeout = {}", time.saturating_sub(begun.elapsed().as_millis()).max(1))
                };
                let is_more = async || {
                    transaction.batch_execute(&left()).await?;
                    let more = transaction.prepare_cached(MORE).await?;
                    transaction.query_one(&more, &[&below.created_at_ms, &below.id, &rooms]).await?.try_get(0)
                };
                if (found.len() as i64) < limit && is_more().await? {
                    transaction.batch_execute(&left()).await?;
                    let indexed = transaction.prepare_cached(SEARCH_INDEXED).await?;
                    found = transaction
                        .query(&indexed, &[&below.created_at_ms, &below.id, &limit, &query, &pieces])
                        .await?;
                }
                transaction.commit().await?;
                Ok(found)
            };
            let found = self.pool.run(async |client| search(client).await.map_err(bounded)).await?;
            Ok(found.iter().map(room).collect())
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
            values.extend([&room.name as &(dyn ToSql + Sync), &folded, &room.description, &search]);
            Ok(self.execute(UPDATE, &values).await? == 1)
        }
        .boxed()
    }

    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.execute(DELETE, &values(&event)).await? == 1) }.boxed()
    }

    fn oldest(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        async move { Ok(self.query(OLDEST, &[&room], owed).await?.pop()) }.boxed()
    }

    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        async move { Ok(self.query(CLOSING, &[&room], owed).await?.pop()) }.boxed()
    }

    fn oldest_of_rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        async move { self.query(OLDEST_OF_ROOMS, &[&after, &i64::from(limit)], owed).await }.boxed()
    }

    fn remove_events(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(REMOVE_EVENTS, &[&events]).await.map(drop) }.boxed()
    }
}

/// Returns an outbox row, in the order of the statements' parameters.
fn values(event: &RoomEvent) -> [&(dyn ToSql + Sync); 8] {
    let RoomEvent { id, room_id, number, sender, event, data, closes_room } = event;
    [id, room_id, number, &sender.id, &sender.username, event, data, closes_room]
}
