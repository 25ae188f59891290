//! Users who share a room, in Postgres.

use confab_common::Result;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use super::PostgresStore;
use crate::store::AcquaintanceStore;

// For each of the users, LIMIT ends the reading of the user's rooms at the first common one, and keeps Postgres from
// joining all members of the rooms.
const ACQUAINTANCES: &str = "/* acquaintances */
    SELECT others.id FROM unnest($2::uuid[]) AS others (id) CROSS JOIN LATERAL (
        SELECT 1 FROM members other JOIN members own ON own.room_id = other.room_id AND own.user_id = $1::uuid
        WHERE other.user_id = others.id LIMIT 1) shared";

impl AcquaintanceStore for PostgresStore {
    fn acquaintances(&self, user: Uuid, others: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        async move { self.query(ACQUAINTANCES, &[&user, &others], |row| row.get(0)).await }.boxed()
    }
}
