//! The tables that `confab export` and `confab import` transfer. A migration that adds columns must also add them here.

use anyhow::{Context, ensure};
use confab_common::transfer::Kind::{Flag, Id, Local, Number, Text};
use confab_common::transfer::{LockedStore, Schema, Table, Value};

use super::{postgres, sqlite};

/// The log. Its fingerprint is not transferred: the imported log counts as never opened on any database, so the first
/// start gives it a new epoch, whether or not the original log is still in use.
pub static SCHEMA: Schema = Schema {
    name: "message",
    tables: &[
        LOG,
        Table::new("partitions", 1, &[("partition", Number), ("head", Number)]),
        Table::new(
            "room_heads",
            2,
            &[
                ("partition", Number),
                ("room_id", Id),
                ("seq", Number),
                ("closed", Flag),
                ("private", Flag),
                ("opened", Flag),
                ("opened_in", Id),
                ("opening_in", Id),
                ("opening_seq", Number),
                ("messages", Number),
                ("counted_from", Number),
                ("last_message_at", Number),
            ],
        ),
        Table::new(
            "room_members",
            3,
            &[
                ("partition", Number),
                ("room_id", Id),
                ("user_id", Id),
                ("role", Number),
                ("since_seq", Number),
                ("opened_in", Id),
                ("read_seq", Number),
                ("read_ordinal", Number),
                ("read_at", Number),
                ("unread_at", Number),
                ("level", Number),
                ("level_until", Number),
            ],
        ),
        // Before the tables whose triggers add rows, which skip the transferred ones.
        Table::new("files_to_drop", 3, &[("partition", Number), ("room_id", Id), ("file_id", Id)]),
        Table::new(
            "events",
            2,
            &[
                ("partition", Number),
                ("position", Number),
                ("room_id", Id),
                ("seq", Number),
                ("kind", Number),
                ("id", Id),
                ("sender_id", Id),
                ("client_id", Text),
                ("body", Text),
                ("created_at", Number),
                ("target", Number),
                ("op", Number),
                ("ordinal", Number),
            ],
        ),
        Table::new("deleted_files", 3, &[("partition", Number), ("room_id", Id), ("file_id", Id)]),
        Table::new(
            "message_state",
            3,
            &[
                ("partition", Number),
                ("room_id", Id),
                ("seq", Number),
                ("revision", Number),
                ("text_revision", Number),
                ("content", Text),
                ("edited_at", Number),
                ("deleted_at", Number),
                ("deleted_by", Id),
                ("deleted_by_name", Text),
                ("pinned", Number),
                ("to_erase", Flag),
                ("erased_to", Number),
                ("deleted_ordinal", Number),
                ("reactions", Text),
                ("data", Text),
            ],
        ),
        Table::new(
            "reactions",
            5,
            &[
                ("partition", Number),
                ("room_id", Id),
                ("seq", Number),
                ("user_id", Id),
                ("name", Text),
                ("username", Text),
                ("at", Number),
            ],
        ),
        Table::new("message_edits", 4, &[("partition", Number), ("room_id", Id), ("target", Number), ("seq", Number)]),
        Table::new(
            "change_runs",
            3,
            &[("partition", Number), ("room_id", Id), ("first_seq", Number), ("last_seq", Number)],
        ),
    ],
    // The index of messages is built again from the log.
    derived: &["file_uses", "needed_privileges", "search", "search_closed", "search_progress"],
    sqlite: sqlite::migrations::runner,
    postgres: postgres::migrations::runner,
};

const LOG: Table = Table::new(
    "log",
    1,
    &[
        ("one", Flag),
        ("partitions", Number),
        ("epoch", Id),
        ("fingerprint", Local),
        ("format", Number),
        ("rooms_opened", Flag),
    ],
);

/// Returns the number of partitions of the log in a store.
///
/// # Errors
/// When there is no log.
pub async fn partitions(locked: &mut LockedStore) -> anyhow::Result<u32> {
    let rows = locked.first(&LOG).await?;
    ensure!(!rows.is_empty(), "the message store has no log: Confab has never run on it");
    match rows[0][..] {
        [_, Value::Number(partitions), ..] => Ok(partitions.try_into()?),
        _ => None.context("the log has no number of partitions"),
    }
}

#[cfg(test)]
mod tests {
    use confab_common::transfer::contract;

    #[tokio::test]
    async fn every_column_is_transferred() {
        contract::check(&super::SCHEMA).await.unwrap();
    }
}
