//! The members of rooms in Postgres.

use confab_common::Result;
use futures::future::{BoxFuture, FutureExt};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::outbox::values;
use super::{PostgresStore, seen};
use crate::store::{
    Member, MemberChange, MemberPosition, MemberStore, Position, Role, Seen, SeenWithMember, User,
    added_to_too_many_rooms, too_many_rooms, user_gone,
};

fn member_at(row: &Row, column: usize) -> Member {
    Member {
        user: User { id: row.get(column), username: row.get(column + 1) },
        role: Role::of(row.get(column + 2)),
        joined_at_ms: row.get(column + 3),
    }
}

fn member(row: &Row) -> Member {
    member_at(row, 0)
}

fn seen_with_member(row: &Row) -> SeenWithMember {
    (seen(row), row.get::<_, Option<Uuid>>(9).map(|_| member_at(row, 9)))
}

const GET_MEMBER: &str = "/* get_member */
    SELECT rooms.id, name, description, owner_id, owner_name, created_at_ms, revision, private,
           (SELECT role FROM members WHERE room_id = rooms.id AND user_id = $2::uuid),
           other.user_id, other.username, other.role, other.joined_at_ms
    FROM rooms LEFT JOIN members other ON other.room_id = rooms.id AND other.user_id = $3::uuid WHERE rooms.id = $1";

const MEMBERS: &str = "/* members */
    SELECT user_id, username, role, joined_at_ms FROM (
        (SELECT user_id, username, role, joined_at_ms FROM members
         WHERE room_id = $1::uuid AND role = $2::smallint AND (joined_at_ms, user_id) > ($3, $4)
         ORDER BY joined_at_ms, user_id LIMIT $5)
        UNION ALL
        (SELECT user_id, username, role, joined_at_ms FROM members
         WHERE room_id = $1::uuid AND role < $2::smallint ORDER BY role DESC, joined_at_ms, user_id LIMIT $5)
    ) page
    ORDER BY role DESC, joined_at_ms, user_id LIMIT $5";

const FIRST_OTHERS: &str = "/* first_others */
    SELECT user_id, username, role, joined_at_ms FROM members
    WHERE room_id = $1 AND user_id <> $2
      AND NOT EXISTS (SELECT 1 FROM gone_users gone WHERE gone.user_id = members.user_id)
    ORDER BY role DESC, joined_at_ms, user_id LIMIT $3";

const RECORD_GONE: &str = "/* record_gone */
    INSERT INTO gone_users (user_id, username) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING";

const RECORD_LEFT: &str = "/* record_left */ UPDATE gone_users SET left_at_ms = $2, settled = false WHERE user_id = $1";

const UNSETTLED: &str = "/* unsettled */
    SELECT user_id, username, left_at_ms FROM gone_users
    WHERE NOT settled AND left_at_ms IS NOT NULL AND user_id > $1 ORDER BY user_id LIMIT $2";

const SETTLE: &str = "/* settle_user */ UPDATE gone_users SET settled = true WHERE user_id = $1";

const ROOMS_OF: &str = "/* rooms_of */ SELECT room_id FROM members WHERE user_id = $1 ORDER BY room_id LIMIT $2";

// From the user's memberships to the rooms, also if the planner expects the reverse to be cheaper.
const OWN_ROOMS: &str = "/* own_rooms */
    SELECT created_at_ms, id FROM members CROSS JOIN LATERAL (
        SELECT id, created_at_ms, search FROM rooms WHERE rooms.id = members.room_id OFFSET 0) own
    WHERE user_id = $1 AND ($2 = '' OR strpos(search, $2) > 0)";

const READ_OWN: &str = "/* read_own */
    SELECT id, name, description, owner_id, owner_name, created_at_ms, revision, private, role
    FROM rooms JOIN members ON members.room_id = rooms.id AND members.user_id = $1 WHERE rooms.id = ANY($2)";

// Counts no rooms unless a user joins: with a parameter NULL, the function does not run.
const CHANGE_MEMBERS: &str = "/* change_members */
    WITH place AS MATERIALIZED (
        SELECT coalesce(missing_place($10::uuid, $2::uuid, $11::bigint, $17::uuid IS NOT NULL), 0) AS missing
    ), changed AS (
        UPDATE rooms SET revision = $3::bigint
        WHERE id = $2::uuid AND revision = $3::bigint - 1 AND (SELECT missing = 0 FROM place)
          AND NOT EXISTS (SELECT 1 FROM gone_users WHERE user_id = $10::uuid)
        RETURNING id
    ), removed AS (
        DELETE FROM members WHERE room_id = $2::uuid AND user_id = $12::uuid AND EXISTS (SELECT 1 FROM changed)
    ), given AS (
        INSERT INTO members (room_id, user_id, username, role, joined_at_ms, added_by)
        SELECT changed.id, users.id, users.username, users.role, users.joined_at_ms,
               CASE WHEN users.id = $10::uuid THEN $17::uuid END
        FROM changed, unnest($13::uuid[], $14::text[], $15::smallint[], $16::bigint[])
            AS users (id, username, role, joined_at_ms)
        ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role
    ), owed AS (
        INSERT INTO outbox (id, room_id, number, sender_id, sender_name, event, data, closes_room, access)
        SELECT $1::uuid, id, $3::bigint, $4::uuid, $5, $6, $7, $8::boolean, $9 FROM changed RETURNING id
    )
    SELECT EXISTS (SELECT 1 FROM owed), missing, EXISTS (SELECT 1 FROM gone_users WHERE user_id = $10::uuid)
    FROM place";

impl MemberStore for PostgresStore {
    fn get_member(
        &self,
        room: Uuid,
        reader: Uuid,
        user: Option<Uuid>,
    ) -> BoxFuture<'_, Result<Option<SeenWithMember>>> {
        async move { Ok(self.query(GET_MEMBER, &[&room, &reader, &user], seen_with_member).await?.pop()) }.boxed()
    }

    fn members(&self, room: Uuid, after: MemberPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>> {
        async move {
            let MemberPosition { role, joined_at_ms, user } = after;
            self.query(MEMBERS, &[&room, &role, &joined_at_ms, &user, &i64::from(limit)], member).await
        }
        .boxed()
    }

    fn first_others(&self, room: Uuid, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>> {
        async move { self.query(FIRST_OTHERS, &[&room, &user, &i64::from(limit)], member).await }.boxed()
    }

    fn rooms_of(&self, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        async move { self.query(ROOMS_OF, &[&user, &i64::from(limit)], |row| row.get(0)).await }.boxed()
    }

    fn own_rooms(&self, user: Uuid, query: String) -> BoxFuture<'_, Result<Vec<Position>>> {
        let position = |row: &Row| Position { created_at_ms: row.get(0), id: row.get(1) };
        async move { self.query(OWN_ROOMS, &[&user, &query], position).await }.boxed()
    }

    fn read_own(&self, user: Uuid, rooms: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Seen>>> {
        async move { self.query(READ_OWN, &[&user, &rooms], seen).await }.boxed()
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<bool>> {
        async move {
            let MemberChange { set, removed, joins, event } = &change;
            let users = set.iter().map(|member| member.user.id).collect::<Vec<_>>();
            let names = set.iter().map(|member| member.user.username.as_str()).collect::<Vec<_>>();
            let roles = set.iter().map(|member| member.role.number()).collect::<Vec<_>>();
            let times = set.iter().map(|member| member.joined_at_ms).collect::<Vec<_>>();
            let maximum = self.maximum();
            let (user, added_by) = (joins.map(|joins| joins.user), joins.and_then(|joins| joins.added_by));
            let mut values = values(event).to_vec();
            values.extend([&user as &(dyn ToSql + Sync), &maximum, removed, &users, &names, &roles, &times, &added_by]);
            let outcome = |row: &Row| (row.get::<_, bool>(0), row.get::<_, i32>(1), row.get::<_, bool>(2));
            match self.query(CHANGE_MEMBERS, &values, outcome).await?[..] {
                [(true, _, _)] => Ok(true),
                [(false, _, true)] => Err(user_gone()),
                [(false, 1, false)] => Err(too_many_rooms(self.max_rooms)),
                [(false, 2, false)] => Err(added_to_too_many_rooms(self.max_rooms)),
                _ => Ok(false),
            }
        }
        .boxed()
    }

    fn record_gone(&self, user: User) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(RECORD_GONE, &[&user.id, &user.username]).await.map(drop) }.boxed()
    }

    fn record_left(&self, user: Uuid, at_ms: i64) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(RECORD_LEFT, &[&user, &at_ms]).await.map(drop) }.boxed()
    }

    fn unsettled(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(User, i64)>>> {
        let row = |row: &Row| (User { id: row.get(0), username: row.get(1) }, row.get(2));
        async move { self.query(UNSETTLED, &[&after, &i64::from(limit)], row).await }.boxed()
    }

    fn settle(&self, user: Uuid) -> BoxFuture<'_, Result<()>> {
        async move { self.execute(SETTLE, &[&user]).await.map(drop) }.boxed()
    }
}
