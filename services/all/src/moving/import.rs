//! `confab import DIR`.

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, ensure};
use confab_common::store::StorageConfig;
use confab_common::transfer::{Schema, Tally, Tallying, rows};
use confab_file::{FILES, ObjectCopier};

use super::archive::{Archive, Manifest};
use super::{show, stores};
use crate::config::Parts;

/// Reads a directory into the configured stores, which must be empty. The import fills all stores or none: each store
/// is filled in one transaction, and all are committed after everything has been read and compared.
///
/// # Errors
/// When the archive is damaged or has another format, or a store is not empty, is in use, or rejects the data.
pub async fn import(parts: &Parts, storage: &StorageConfig, directory: &Path) -> anyhow::Result<()> {
    let (archive, manifest) = Archive::open(directory)?;
    let stores = stores(parts, storage)?;
    let (has, wanted) = (manifest.partitions, parts.message.partitions);
    ensure!(
        has == wanted,
        "the log in the archive has {has} partitions, but CONFAB_PARTITIONS is {wanted}; the number of partitions cannot be changed"
    );
    manifest.check(stores.iter().map(|(schema, _)| *schema))?;
    let copier = ObjectCopier::new(&parts.file, storage, archive.objects())?;
    verify(&archive, &manifest, &copier, stores.iter().map(|(schema, _)| *schema))
        .await
        .context("the archive is damaged")?;

    let mut locked = Vec::new();
    for (schema, url) in &stores {
        locked.push(
            schema.lock_empty(url, storage).await.with_context(|| format!("cannot fill the {} store", schema.name))?,
        );
    }
    copier.ensure_empty().await?;
    let objects = copier
        .import(files(&archive)?)
        .await
        .context("only files were imported; the next import continues from there")?;
    let mut arrived = Vec::new();
    for store in &mut locked {
        for table in store.schema.tables {
            let name = format!("{}.{}", store.schema.name, table.name);
            store
                .load(table, archive.read(store.schema.name, table.name)?)
                .await
                .with_context(|| format!("writing {name}"))?;
            arrived.push((name, store.tally(table).await?));
        }
    }
    arrived.push(("objects".to_owned(), objects));
    for ((name, is), (_, was)) in arrived.iter().zip(manifest.tallies()) {
        ensure!(is == was, "{name} differs from the export: {is} instead of {was}; only files were imported");
    }
    let mut filled = Vec::new();
    for store in locked {
        let name = store.schema.name;
        let advice = || {
            format!(
                "the {name} store was not filled, but these stores were: {}; empty them and import again",
                filled.join(", ")
            )
        };
        store.commit().await.with_context(advice)?;
        filled.push(name);
    }
    show(arrived.iter().map(|(name, tally)| (name.clone(), tally)));
    println!("All imported data equals the exported data.");
    Ok(())
}

/// Reads the whole archive before anything is written.
async fn verify(
    archive: &Archive,
    manifest: &Manifest,
    copier: &ObjectCopier,
    schemas: impl Iterator<Item = &'static Schema>,
) -> anyhow::Result<()> {
    let tables = schemas.flat_map(|schema| schema.tables.iter().map(move |table| (schema, table)));
    for ((schema, table), entry) in tables.zip(&manifest.tables) {
        let found = tally(archive.read(schema.name, table.name)?)?;
        ensure!(found == entry.tally, "{}.{} is {found} instead of {}", schema.name, table.name, entry.tally);
        rows(table, archive.read(schema.name, table.name)?).try_for_each(|row| row.map(drop))?;
    }
    let objects = copier.verify(files(archive)?).await?;
    ensure!(objects == manifest.objects, "the objects are {objects} instead of {}", manifest.objects);
    Ok(())
}

fn files(archive: &Archive) -> anyhow::Result<impl BufRead> {
    archive.read(confab_file::SCHEMA.name, FILES.name)
}

fn tally(mut lines: impl BufRead) -> anyhow::Result<Tally> {
    let (mut tally, mut line) = (Tallying::default(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        tally.line(&line);
        line.clear();
    }
    Ok(tally.finish())
}
