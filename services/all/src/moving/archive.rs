//! The directory of an export: one file of lines per table, the objects, and a manifest with the count and the hash of
//! each, written last. The directory contains password hashes, so it is readable only for its owner.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use confab_common::transfer::{Schema, Table, Tally};
use serde::{Deserialize, Serialize};

/// The archive format that this program writes and reads.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The version of the program that wrote the archive.
    program: String,
    /// The number of partitions of the log.
    pub partitions: u32,
    pub tables: Vec<Entry>,
    /// The content of files: one line per object, with its key, size and SHA-256.
    pub objects: Tally,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    pub store: String,
    pub table: String,
    columns: Vec<String>,
    #[serde(flatten)]
    pub tally: Tally,
}

impl Manifest {
    pub fn new(partitions: u32, tables: Vec<Entry>, objects: Tally) -> Self {
        Self { format: FORMAT, program: env!("CARGO_PKG_VERSION").into(), partitions, tables, objects }
    }

    /// Checks that this program has the same tables as the program that wrote the archive.
    pub fn check<'a>(&self, schemas: impl IntoIterator<Item = &'a Schema>) -> anyhow::Result<()> {
        let known =
            schemas.into_iter().flat_map(|schema| schema.tables.iter().map(|table| Entry::names(schema, table)));
        let known = known.collect::<Vec<_>>();
        let named = self.tables.iter().map(|entry| (entry.store.clone(), entry.table.clone(), entry.columns.clone()));
        ensure!(
            named.eq(known),
            "the archive was written by Confab {}, whose tables differ from those of this version, {}; import it with that version, then upgrade",
            self.program,
            env!("CARGO_PKG_VERSION")
        );
        Ok(())
    }

    /// Returns the counts and hashes of the tables.
    pub fn tallies(&self) -> impl Iterator<Item = (String, &Tally)> {
        let tables = self.tables.iter().map(|entry| (format!("{}.{}", entry.store, entry.table), &entry.tally));
        tables.chain([("objects".to_owned(), &self.objects)])
    }
}

impl Entry {
    pub fn new(schema: &Schema, table: &Table, tally: Tally) -> Self {
        let (store, table, columns) = Self::names(schema, table);
        Self { store, table, columns, tally }
    }

    fn names(schema: &Schema, table: &Table) -> (String, String, Vec<String>) {
        (schema.name.into(), table.name.into(), table.columns().map(String::from).collect())
    }
}

pub struct Archive(PathBuf);

impl Archive {
    /// Creates an archive in a directory that is empty or does not exist.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let empty = match path.read_dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            entries => entries.with_context(|| format!("cannot read {}", path.display()))?.next().is_none(),
        };
        ensure!(empty, "{} is not empty; export to an empty directory", path.display());
        make(path)?;
        Ok(Self(path.into()))
    }

    pub fn open(path: &Path) -> anyhow::Result<(Self, Manifest)> {
        let archive = Self(path.into());
        let manifest = archive.manifest();
        let text = fs::read(&manifest)
            .with_context(|| format!("{} is not a complete archive: cannot read its manifest", path.display()))?;
        let json = serde_json::from_slice::<serde_json::Value>(&text)
            .with_context(|| format!("{} is damaged", manifest.display()))?;
        ensure!(
            json["format"] == FORMAT,
            "the archive has format {}; this program supports only format {FORMAT}",
            json["format"]
        );
        let manifest = serde_json::from_value(json).with_context(|| format!("{} is damaged", manifest.display()))?;
        Ok((archive, manifest))
    }

    /// The directory of the objects.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Opens the lines of a table.
    pub fn read(&self, store: &str, table: &str) -> anyhow::Result<BufReader<File>> {
        let path = self.table(store, table);
        Ok(BufReader::new(
            File::open(&path).with_context(|| format!("the archive is damaged: cannot read {}", path.display()))?,
        ))
    }

    /// Creates the file for the lines of a table.
    pub fn write(&self, store: &str, table: &str) -> anyhow::Result<BufWriter<File>> {
        let path = self.table(store, table);
        make(&self.0.join(store))?;
        Ok(BufWriter::new(create(&path)?))
    }

    pub fn finish(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let path = self.manifest();
        let draft = path.with_extension("new");
        let mut file = create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        Ok(File::open(&self.0)?.sync_all()?)
    }

    fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    fn table(&self, store: &str, table: &str) -> PathBuf {
        self.0.join(store).join(format!("{table}.jsonl"))
    }
}

fn make(directory: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot create {}", directory.display()))
}

fn create(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}
