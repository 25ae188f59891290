//! The tables that `confab export` and `confab import` transfer. A migration that adds columns must also add them here.

use confab_common::transfer::Kind::{Bytes, Flag, Id, Number, Text};
use confab_common::transfer::{Schema, Table};

use super::{postgres, sqlite};

pub static SCHEMA: Schema = Schema {
    name: "auth",
    tables: &[
        Table::new(
            "users",
            1,
            &[
                ("id", Id),
                ("username", Text),
                ("username_folded", Text),
                ("password_hash", Text),
                ("created_at_ms", Number),
                ("username_skeleton", Text),
                ("state", Number),
                ("display_name", Text),
                ("avatar_file_id", Id),
                ("data", Text),
                ("tokens_from_s", Number),
                ("free_name_at_ms", Number),
                ("issuer", Text),
                ("claimed_name", Text),
                ("claimed_picture", Text),
                ("claimed_at_ms", Number),
                ("shown_name", Text),
                ("shown_folded", Text),
                ("name_of", Id),
            ],
        ),
        Table::new("revocation_head", 1, &[("single", Flag), ("number", Number)]).seeded(),
        Table::new(
            "revocations",
            1,
            &[
                ("number", Number),
                ("session_id", Id),
                ("user_id", Id),
                ("expires_at_ms", Number),
                ("kind", Number),
                ("not_before_s", Number),
                ("except_session_id", Id),
            ],
        ),
        // After the revocations: a revocation deletes the session that it ends.
        Table::new(
            "sessions",
            1,
            &[
                ("id", Id),
                ("user_id", Id),
                ("created_at_ms", Number),
                ("last_seen_at_ms", Number),
                ("expires_at_ms", Number),
                ("token_expires_at_ms", Number),
                ("user_agent", Text),
                ("address", Text),
                ("refresh_sha256", Bytes),
                ("previous_sha256", Bytes),
                ("generation", Number),
                ("used_at_ms", Number),
            ],
        ),
        Table::new(
            "invites",
            1,
            &[
                ("id", Id),
                ("code_sha256", Bytes),
                ("uses_left", Number),
                ("expires_at_ms", Number),
                ("created_at_ms", Number),
            ],
        ),
        Table::new(
            "password_resets",
            1,
            &[
                ("user_id", Id),
                ("token_sha256", Bytes),
                ("created_at_ms", Number),
                ("expires_at_ms", Number),
                ("used_at_ms", Number),
            ],
        ),
        Table::new("operations", 1, &[("id", Id), ("subject", Id), ("at_ms", Number)]),
        Table::new("leaving", 1, &[("user_id", Id), ("username", Text), ("created_at_ms", Number)]),
        Table::new(
            "server_keys",
            1,
            &[("id", Id), ("name", Text), ("sha256", Bytes), ("scopes", Text), ("created_at_ms", Number)],
        ),
        Table::new(
            "audit",
            1,
            &[
                ("id", Id),
                ("at_ms", Number),
                ("key_id", Id),
                ("act", Text),
                ("object", Text),
                ("details", Text),
                ("request_id", Text),
            ],
        ),
    ],
    derived: &[],
    sqlite: sqlite::embedded::migrations::runner,
    postgres: postgres::embedded::migrations::runner,
};

#[cfg(test)]
mod tests {
    use confab_common::transfer::contract;

    #[tokio::test]
    async fn every_column_is_transferred() {
        contract::check(&super::SCHEMA).await.unwrap();
    }
}
