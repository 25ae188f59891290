//! Users who share a room, in a SQLite file.

use confab_common::Result;
use futures::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{SqliteStore, id, query};
use crate::store::AcquaintanceStore;

// With CROSS JOIN, SQLite reads the rooms of one of the users, and ends at the first common one.
const ACQUAINTANCES: &str = "/* acquaintances */
    SELECT unhex(others.value) FROM json_each(?2) others WHERE EXISTS (
        SELECT 1 FROM members other CROSS JOIN members own ON own.room_id = other.room_id AND own.user_id = ?1
        WHERE other.user_id = unhex(others.value))";

impl AcquaintanceStore for SqliteStore {
    fn acquaintances(&self, user: Uuid, others: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let find = move |connection: &Connection| {
            let others = others.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>();
            let others = serde_json::json!(others).to_string();
            query(connection, ACQUAINTANCES, params![user.as_bytes(), others], |row| id(row, 0))
        };
        self.database.read(find).boxed()
    }
}
