//! The outbox in Postgres.

use confab_common::Result;
use confab_common::operations::Operations;
use futures::future::{BoxFuture, FutureExt};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::PostgresStore;
use crate::store::{MAX_OPENING_MEMBERS, Opening, OpeningRow, OutboxStore, Owed, Role, RoomEvent, User};

/// Returns an outbox row, in the order of the statements' parameters.
pub(super) fn values(event: &RoomEvent) -> [&(dyn ToSql + Sync); 9] {
    let RoomEvent { id, room_id, number, sender, event, data, closes_room, access } = event;
    [id, room_id, number, &sender.id, &sender.username, event, data, closes_room, access]
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
        access: row.get(8),
    };
    Owed { event, room_gone: row.get(9), unopened: row.get(10) }
}

fn opening_row(row: &Row) -> OpeningRow {
    (row.get(0), row.get(3), row.get::<_, Option<Uuid>>(1).map(|user| (user, Role::of(row.get(2)))))
}

const OLDEST: &str = "/* oldest */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox WHERE room_id = $1 ORDER BY number LIMIT $2";

const CLOSING: &str = "/* closing */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox WHERE room_id = $1 AND closes_room";

const OLDEST_OF_ROOMS: &str = "/* oldest_of_rooms */
    SELECT id, room_id, number, sender_id, sender_name, event, data, closes_room, access,
           NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = outbox.room_id),
           EXISTS (SELECT 1 FROM openings WHERE openings.room_id = outbox.room_id)
    FROM outbox
    WHERE room_id IN (SELECT DISTINCT room_id FROM outbox WHERE room_id > $1 ORDER BY room_id LIMIT $2)
      AND number < (SELECT min(other.number) FROM outbox other WHERE other.room_id = outbox.room_id) + $3::bigint
    ORDER BY room_id, number";

const REMOVE_EVENTS: &str = "/* settle */ DELETE FROM outbox WHERE id = ANY($1)";

const UNOPENED: &str = "/* unopened */ SELECT room_id FROM openings WHERE room_id > $1 ORDER BY room_id LIMIT $2";

const OPENING: &str = "/* opening */
    SELECT rooms.private, members.user_id, members.role, openings.epoch
    FROM openings LEFT JOIN rooms ON rooms.id = openings.room_id LEFT JOIN members ON members.room_id = openings.room_id
    WHERE openings.room_id = $1 ORDER BY members.role DESC, members.joined_at_ms, members.user_id LIMIT $2";

const MEMBERS_BY_ID: &str = "/* members_by_id */
    SELECT user_id, role FROM members WHERE room_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3";

const REMOVE_OPENING: &str = "/* opened */
    DELETE FROM openings WHERE room_id = $1 AND epoch IS NOT DISTINCT FROM $2::uuid";

const LOG_EPOCH: &str = "/* log_epoch */ SELECT epoch FROM log_epoch";

const RECORD_EPOCH: &str = "/* log_epoch */
    INSERT INTO log_epoch (one, epoch) VALUES (true, $1)
    ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch WHERE log_epoch.epoch < excluded.epoch";

const REOPEN: &str = "/* reopen */
    WITH page AS (SELECT id FROM room_ids WHERE id > $2 ORDER BY id LIMIT $3),
    queued AS (
        INSERT INTO openings (room_id, epoch) SELECT id, $1::uuid FROM page
        ON CONFLICT (room_id) DO UPDATE SET epoch = excluded.epoch)
    SELECT id FROM page ORDER BY id DESC LIMIT 1";

impl OutboxStore for PostgresStore {
    fn oldest(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        async move { self.query(OLDEST, &[&room, &i64::from(limit)], owed).await }.boxed()
    }

    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>> {
        async move { Ok(self.query(CLOSING, &[&room], owed).await?.pop()) }.boxed()
    }

    fn oldest_of_rooms(&self, after: Uuid, rooms: u32, each: u32) -> BoxFuture<'_, Result<Vec<Owed>>> {
        async move { self.query(OLDEST_OF_ROOMS, &[&after, &i64::from(rooms), &i64::from(each)], owed).await }.boxed()
    }

    fn remove_events(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(REMOVE_EVENTS, &[&events]).await.map(drop) }.boxed()
    }

    fn unopened(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        async move { self.query(UNOPENED, &[&after, &i64::from(limit)], |row| row.get(0)).await }.boxed()
    }

    fn opening(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Opening>>> {
        async move {
            let rows = self.query(OPENING, &[&room, &i64::from(MAX_OPENING_MEMBERS + 1)], opening_row).await?;
            Ok(Opening::of(rows, MAX_OPENING_MEMBERS))
        }
        .boxed()
    }

    fn members_by_id(&self, room: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, Role)>>> {
        let member = |row: &Row| (row.get(0), Role::of(row.get(1)));
        async move { self.query(MEMBERS_BY_ID, &[&room, &after, &i64::from(limit)], member).await }.boxed()
    }

    fn remove_opening(&self, room: Uuid, epoch: Option<Uuid>) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(REMOVE_OPENING, &[&room, &epoch]).await.map(drop) }.boxed()
    }

    fn log_epoch(&self) -> BoxFuture<'_, Result<Option<Uuid>>> {
        async move { Ok(self.query(LOG_EPOCH, &[], |row| row.get(0)).await?.pop()) }.boxed()
    }

    fn record_epoch(&self, epoch: Uuid) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(RECORD_EPOCH, &[&epoch]).await.map(drop) }.boxed()
    }

    fn reopen(&self, epoch: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Option<Uuid>>> {
        async move { Ok(self.query(REOPEN, &[&epoch, &after, &i64::from(limit)], |row| row.get(0)).await?.pop()) }
            .boxed()
    }

    fn operations(&self) -> &dyn Operations {
        &self.pool
    }
}
