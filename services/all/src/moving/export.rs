//! `confab export DIR`.

use std::path::Path;

use anyhow::Context;
use confab_common::store::StorageConfig;
use confab_common::transfer::LockedStore;
use confab_file::{FILES, ObjectCopier};

use super::archive::{Archive, Entry, Manifest};
use super::{show, stores};
use crate::config::Parts;

/// Writes the contents of the configured stores to a directory.
///
/// # Errors
/// When a store is in use or cannot be read, or the directory cannot be written.
pub async fn export(parts: &Parts, storage: &StorageConfig, directory: &Path) -> anyhow::Result<()> {
    let (mut locked, mut partitions) = (Vec::new(), 0);
    // All stores are locked before the first is read.
    for (schema, url) in stores(parts, storage)? {
        let mut store =
            schema.lock(&url, storage).await.with_context(|| format!("cannot read the {} store", schema.name))?;
        if schema.name == confab_message::SCHEMA.name {
            partitions = confab_message::partitions(&mut store).await?;
        }
        locked.push(store);
    }
    let archive = Archive::create(directory)?;
    let written = write(&archive, locked, partitions, parts, storage).await;
    let manifest = written
        .with_context(|| format!("nothing was exported; remove {} before the next attempt", directory.display()))?;
    show(manifest.tallies());
    Ok(())
}

async fn write(
    archive: &Archive,
    locked: Vec<LockedStore>,
    partitions: u32,
    parts: &Parts,
    storage: &StorageConfig,
) -> anyhow::Result<Manifest> {
    let mut entries = Vec::new();
    for mut store in locked {
        let schema = store.schema;
        for table in schema.tables {
            let mut file = archive.write(schema.name, table.name)?;
            let tally = store
                .dump(table, &mut file)
                .await
                .with_context(|| format!("reading {}.{}", schema.name, table.name))?;
            file.into_inner()?.sync_all()?;
            entries.push(Entry::new(schema, table, tally));
        }
    }
    let files = archive.read(confab_file::SCHEMA.name, FILES.name)?;
    let copier = ObjectCopier::new(&parts.file, storage, archive.objects())?;
    let objects = copier.export(files).await?;
    let manifest = Manifest::new(partitions, entries, objects);
    archive.finish(&manifest)?;
    Ok(manifest)
}
