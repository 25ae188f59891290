//! The tables that `confab export` and `confab import` transfer. A migration that adds columns must also add them here.

use confab_common::transfer::Kind::{Flag, Id, Number, Text};
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
            ],
        ),
        Table::new("revocation_head", 1, &[("single", Flag), ("number", Number)]).seeded(),
        Table::new(
            "revocations",
            1,
            &[("number", Number), ("session_id", Id), ("user_id", Id), ("expires_at_ms", Number)],
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
