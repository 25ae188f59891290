//! The tables that `confab export` and `confab import` transfer. A migration that adds columns must also add them here.

use confab_common::transfer::Kind::{Bytes, Flag, Id, Local, Number, Text};
use confab_common::transfer::{Schema, Table};

use super::{postgres, sqlite};

/// Files and the queues for deleted files. The installation is not transferred: the importing installation is another
/// one.
pub static SCHEMA: Schema = Schema {
    name: "file",
    tables: &[
        FILES,
        Table::new("unwanted_objects", 1, &[("id", Id)]),
        Table::new("forgets", 1, &[("file_id", Id), ("room_id", Id)]),
        Table::new("operations", 1, &[("id", Id), ("subject", Id), ("at_ms", Number)]),
        Table::new("installation", 1, &[("one", Flag), ("id", Local), ("turn", Local), ("next", Local)]),
    ],
    derived: &["uploaders"],
    sqlite: sqlite::embedded::migrations::runner,
    postgres: postgres::embedded::migrations::runner,
};

/// The files. The first three columns identify a file's object.
pub const FILES: Table = Table::new(
    "files",
    1,
    &[
        ("id", Id),
        ("size", Number),
        ("sha256", Text),
        ("name", Text),
        ("content_type", Text),
        ("safe_inline", Flag),
        ("uploader_id", Id),
        ("uploader_name", Text),
        ("created_at_ms", Number),
        ("link_key", Bytes),
        ("room_id", Id),
        ("upload_room", Id),
        ("client_message_id", Text),
        ("event_id", Id),
        ("ready", Flag),
    ],
);

#[cfg(test)]
mod tests {
    use confab_common::transfer::contract;

    #[tokio::test]
    async fn every_column_is_transferred() {
        contract::check(&super::SCHEMA).await.unwrap();
    }
}
