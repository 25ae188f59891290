//! The read markers of members.

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Postgres;
use crate::store::{
    Level, MAX_MARKERS, Mark, MarkStore, Marked, Marker, Notify, Readers, Receipt, RoomAccess, RoomKey, number,
};

const MARK: &str =
    "/* mark */ SELECT mark, stands_at, since, unread, moved, small, passed FROM mark_read($1, $2, $3, $4, $5, $6, $7)";

/// The marker of the member `m` in the room `h`.
const MARKER: &str =
    "h.room_id, least(coalesce(m.read_seq, greatest(m.since_seq, coalesce(h.counted_from, h.seq))), h.seq),
    unread_above(h.partition, h.room_id, h.messages, ordinal_of(m, h.counted_from)),
    h.seq, h.last_message_at, m.level, m.level_until";

const RECEIPTS: &str = "/* receipts */
    SELECT h.room_id IS NOT NULL, coalesce(h.private, false), CASE WHEN h.private THEN
        ARRAY (SELECT r.user_id FROM room_members r WHERE r.partition = $1 AND r.room_id = $2 AND r.user_id = ANY ($3)) END,
        m.user_id, least(coalesce(m.read_seq, greatest(m.since_seq, coalesce(h.counted_from, h.seq))), h.seq), m.read_at
    FROM (SELECT 1) one
    LEFT JOIN room_heads h ON h.partition = $1 AND h.room_id = $2
    LEFT JOIN LATERAL (
        SELECT * FROM room_members r WHERE r.partition = h.partition AND r.room_id = h.room_id
        ORDER BY r.partition, r.room_id, r.user_id LIMIT $4
    ) m ON true";

const SET_NOTIFY: &str = "/* set_notify */ UPDATE room_members SET level = $4, level_until = $5
    WHERE partition = $1 AND room_id = $2 AND user_id = $3";

impl MarkStore for Postgres {
    fn mark(&self, marks: Vec<Mark>, few: u32, _: i64) -> BoxFuture<'_, Result<Vec<Option<Marked>>>> {
        async move {
            let partitions = marks.iter().map(|mark| mark.room.0 as i32).collect::<Vec<_>>();
            let rooms = marks.iter().map(|mark| mark.room.1).collect::<Vec<_>>();
            let users = marks.iter().map(|mark| mark.user).collect::<Vec<_>>();
            let seqs = marks.iter().map(|mark| number(mark.seq)).collect::<Vec<_>>();
            let ages = marks.iter().map(|mark| i64::from(mark.age_ms)).collect::<Vec<_>>();
            let backs = marks.iter().map(|mark| mark.back).collect::<Vec<_>>();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
                [&partitions, &rooms, &users, &seqs, &ages, &backs, &(few as i32)];
            let mut marked = vec![None; marks.len()];
            for row in self.0.query(MARK, &values).await? {
                marked[row.get::<_, i64>(0) as usize - 1] = Some(Marked {
                    seq: row.get::<_, i64>(1) as u64,
                    at_ms: row.get(2),
                    unread: row.get::<_, i64>(3).max(0) as u64,
                    moved: row.get(4),
                    has_receipts: row.get(5),
                    passed: row.get::<_, i64>(6).max(0) as u64,
                });
            }
            Ok(marked)
        }
        .boxed()
    }

    fn markers(&self, user: Uuid, rooms: Option<Vec<RoomKey>>) -> BoxFuture<'_, Result<Vec<Marker>>> {
        async move {
            let rows = match rooms {
                None => {
                    let read = format!(
                        "/* markers */ SELECT {MARKER} FROM room_members m
                        JOIN room_heads h ON h.partition = m.partition AND h.room_id = m.room_id
                        WHERE m.user_id = $1 AND NOT h.closed LIMIT {MAX_MARKERS}"
                    );
                    self.0.query(&read, &[&user]).await?
                }
                Some(rooms) => {
                    let read = format!(
                        "/* markers_in */ SELECT {MARKER} FROM unnest($2::integer[], $3::uuid[]) AS a (partition, room_id)
                        CROSS JOIN LATERAL (
                            SELECT * FROM room_members r
                            WHERE r.partition = a.partition AND r.room_id = a.room_id AND r.user_id = $1 LIMIT 1
                        ) f
                        JOIN room_members m ON m.partition = f.partition AND m.room_id = f.room_id AND m.user_id = f.user_id
                        JOIN room_heads h ON h.partition = m.partition AND h.room_id = m.room_id
                        WHERE NOT h.closed LIMIT {MAX_MARKERS}"
                    );
                    let (partitions, ids): (Vec<i32>, Vec<Uuid>) =
                        rooms.into_iter().map(|(partition, room)| (partition as i32, room)).unzip();
                    self.0.query(&read, &[&user, &partitions, &ids]).await?
                }
            };
            rows.iter()
                .map(|row| {
                    Ok(Marker {
                        room: row.get(0),
                        seq: row.get::<_, i64>(1) as u64,
                        unread: row.get::<_, i64>(2).max(0) as u64,
                        head: row.get::<_, i64>(3) as u64,
                        last_message_at_ms: row.get(4),
                        notify: Notify {
                            level: Level::try_from(i64::from(row.get::<_, i16>(5)))?,
                            until_ms: row.get(6),
                        },
                    })
                })
                .collect()
        }
        .boxed()
    }

    fn receipts(
        &self,
        (partition, room): RoomKey,
        most: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Vec<Receipt>, RoomAccess)>> {
        async move {
            let rows =
                self.0.query(RECEIPTS, &[&(partition as i32), &room, &readers.users(), &i64::from(most)]).await?;
            let access = rows.first().map_or_else(RoomAccess::default, |row| RoomAccess {
                exists: row.get(0),
                private: row.get(1),
                readers: row.get::<_, Option<Vec<Uuid>>>(2).unwrap_or_default(),
            });
            if !readers.may_read(&access) {
                return Ok((Vec::new(), access));
            }
            let receipt = |row: &tokio_postgres::Row| {
                Some(Receipt {
                    user: row.get::<_, Option<Uuid>>(3)?,
                    seq: row.get::<_, i64>(4) as u64,
                    at_ms: row.get(5),
                })
            };
            Ok((rows.iter().filter_map(receipt).collect(), access))
        }
        .boxed()
    }

    fn set_notify(&self, (partition, room): RoomKey, user: Uuid, notify: Notify) -> BoxFuture<'_, Result<bool>> {
        async move {
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&(partition as i32), &room, &user, &(notify.level as i16), &notify.until_ms];
            Ok(self.0.execute(SET_NOTIFY, &values).await? > 0)
        }
        .boxed()
    }
}
