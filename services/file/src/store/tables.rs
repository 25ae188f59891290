//! What is kept, as it is carried from one store to another. Whoever adds a migration adds its columns here.

use confab_common::transfer::Kind::{Bytes, Flag, Id, Local, Number, Text};
use confab_common::transfer::{Schema, Table};

use super::{postgres, sqlite};

/// Files, and what is owed for those that are gone. Which installation it is stays behind: what arrives is another.
pub static SCHEMA: Schema = Schema {
    name: "file",
    tables: &[
        FILES,
        Table::new("unwanted_objects", 1, &[("id", Id)]),
        Table::new("forgets", 1, &[("file_id", Id), ("room_id", Id)]),
        Table::new("installation", 1, &[("one", Flag), ("id", Local), ("turn", Local), ("next", Local)]),
    ],
    derived: &[],
    sqlite: sqlite::embedded::migrations::runner,
    postgres: postgres::embedded::migrations::runner,
};

/// The files. The first three columns say which object a file is.
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
    async fn all_of_it_is_carried() {
        contract::check(&super::SCHEMA).await.unwrap();
    }
}
