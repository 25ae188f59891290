//! The tables that `confab export` and `confab import` transfer. A migration that adds columns must also add them here.

use confab_common::transfer::Kind::{Flag, Id, Number, Text};
use confab_common::transfer::{Schema, Table};

use super::{postgres, sqlite};

pub static SCHEMA: Schema = Schema {
    name: "room",
    tables: &[
        Table::new(
            "rooms",
            1,
            &[
                ("id", Id),
                ("name", Text),
                ("folded_name", Text),
                ("description", Text),
                ("search", Text),
                ("owner_id", Id),
                ("owner_name", Text),
                ("created_at_ms", Number),
                ("revision", Number),
                ("private", Flag),
            ],
        ),
        Table::new(
            "members",
            2,
            &[
                ("room_id", Id),
                ("user_id", Id),
                ("username", Text),
                ("role", Number),
                ("joined_at_ms", Number),
                ("added_by", Id),
            ],
        ),
        Table::new("openings", 1, &[("room_id", Id), ("epoch", Id)]),
        Table::new("log_epoch", 1, &[("one", Flag), ("epoch", Id)]),
        Table::new("gone_users", 1, &[("user_id", Id), ("username", Text), ("left_at_ms", Number), ("settled", Flag)]),
        Table::new("operations", 1, &[("id", Id), ("subject", Id), ("at_ms", Number)]),
        // After the rooms: the triggers add an owner and an opening only to a room whose id is here.
        Table::new("room_ids", 1, &[("id", Id)]),
        Table::new(
            "outbox",
            2,
            &[
                ("room_id", Id),
                ("number", Number),
                ("id", Id),
                ("sender_id", Id),
                ("sender_name", Text),
                ("event", Text),
                ("data", Text),
                ("closes_room", Flag),
                ("access", Text),
            ],
        ),
    ],
    derived: &["room_numbers"],
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
