//! Moves all durable data from one set of stores to another through a directory: from the embedded server to a cluster,
//! or back. See `docs/moving.md`.

mod archive;
mod export;
mod import;

use anyhow::ensure;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_common::transfer::{Schema, Tally};

use crate::config::Parts;

pub use export::export;
pub use import::import;

/// Returns the services' stores with their schemas. An outbox is read before the store that it feeds, so that no row is
/// missing from both.
fn stores(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<[(&'static Schema, StoreUrl); 4]> {
    for (part, is_elsewhere, is_named) in [
        ("AUTH", parts.auth_url.is_some(), parts.auth.auth_store.is_some()),
        ("ROOM", parts.room_url.is_some(), parts.room.room_store.is_some()),
        ("FILE", parts.file_url.is_some(), parts.file.file_store.is_some()),
        ("MESSAGE", parts.message_url.is_some(), parts.message.message_store.is_some()),
    ] {
        ensure!(
            is_named || !is_elsewhere,
            "CONFAB_{part}_URL is set: also set CONFAB_{part}_STORE to the store of that service"
        );
    }
    Ok([
        (&confab_auth::SCHEMA, parts.auth.store(storage)?),
        (&confab_room::SCHEMA, parts.room.store(storage)?),
        (&confab_file::SCHEMA, parts.file.store(storage)?),
        (&confab_message::SCHEMA, parts.message.store(storage)?),
    ])
}

/// Prints counts and hashes as a table.
fn show<'a>(tallies: impl IntoIterator<Item = (String, &'a Tally)>) {
    println!("{:<24} {:>12}  SHA-256", "", "rows");
    for (name, tally) in tallies {
        println!("{name:<24} {:>12}  {}", tally.rows, tally.sha256);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Program;

    #[test]
    fn remote_service_requires_its_store() {
        let stores = |arguments: &[&str]| {
            let program = Program::parse_from(["confab", "import", "backup"].iter().chain(arguments));
            stores(&program.service, &program.storage)
        };
        let (url, store) = ("--room-url=http://h:1", "--room-store=postgres://h/d");
        assert_eq!(stores(&[]).unwrap()[1].1, StoreUrl::Sqlite("./data/room.db".into()));
        assert!(matches!(stores(&[url, store]).unwrap()[1].1, StoreUrl::Postgres(_)));
        let error = stores(&[url]).err().unwrap().to_string();
        assert_eq!(error, "CONFAB_ROOM_URL is set: also set CONFAB_ROOM_STORE to the store of that service");
    }
}
