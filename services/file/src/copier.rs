//! Copies the content of files to an archive and back. The files' rows, which are transferred separately, contain the
//! expected sizes and hashes.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{self, SHA256};
use confab_common::store::StorageConfig;
use confab_common::transfer::{Progress, Row, Tally, Tallying, Value, hex, rows};
use confab_common::{Code, Error};
use futures::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::FileConfig;
use crate::config::LARGEST;
use crate::memory::Memory;
use crate::object::{self, Content, Objects};
use crate::store::tables::FILES;

/// Objects copied at once.
const AT_ONCE: usize = 8;
/// How often an object is retried while a store is unreachable.
const RETRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Memory for the parts being copied, in bytes (128 MiB).
const MEMORY: usize = 128 << 20;
/// Keys per page of a list.
const KEYS: u32 = 1000;

/// Copies objects between the configured object store and an archive.
pub struct ObjectCopier {
    store: Arc<dyn Objects>,
    archive: Arc<dyn Objects>,
    memory: Memory,
}

/// An object according to its file's row.
struct Object {
    key: Uuid,
    size: u64,
    sha256: String,
}

impl ObjectCopier {
    /// Copies between the configured store and an archive's directory of objects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(config: &FileConfig, storage: &StorageConfig, archive: PathBuf) -> anyhow::Result<Self> {
        // The store may contain files larger than the current limit.
        let store = object::open(&config.objects, &storage.data_dir, LARGEST)?;
        Ok(Self { store, archive: object::in_directory(archive), memory: Memory::new(MEMORY) })
    }

    /// Copies the content of the files in these lines to the archive.
    ///
    /// # Errors
    /// When an object cannot be copied, or does not match its row.
    pub async fn export(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        let copied =
            each(files, "objects copied", async |object| self.copy(&*self.store, &*self.archive, object).await).await;
        copied.map_err(|error| {
            if error.is::<Error>() {
                with_setting(error)
            } else {
                error.context("delete the file through the API, or restore its content")
            }
        })
    }

    /// Checks the content of these files in the archive.
    ///
    /// # Errors
    /// When an object is missing or does not match its row.
    pub async fn verify(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        each(files, "objects read", async |object| check(&*self.archive, object).await).await
    }

    /// Copies the content of these files to the store and reads it back. Objects of an earlier import are checked and
    /// kept.
    ///
    /// # Errors
    /// When an object cannot be copied, or the stored object does not match its row.
    pub async fn import(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        let copy_and_check = async |object: &Object| {
            self.copy(&*self.archive, &*self.store, object).await?;
            check(&*self.store, object).await
        };
        each(files, "objects copied", copy_and_check).await.map_err(with_setting)
    }

    /// Checks that no other installation owns the store, and that the store has no objects except the archive's: a
    /// sweep would soon remove those.
    ///
    /// # Errors
    /// When a check fails, or the store does not answer.
    pub async fn ensure_empty(&self) -> anyhow::Result<()> {
        let owner = self.store.owner().await.map_err(|error| with_setting(error.into()))?;
        ensure!(
            owner.is_none(),
            "the object store belongs to another installation; name another bucket, prefix or directory in CONFAB_OBJECTS or, if \
             that installation no longer exists, remove the object .confab from the store"
        );
        let mut after = Uuid::nil();
        loop {
            let page = self.store.list(after, KEYS).await.map_err(|error| with_setting(error.into()))?;
            for stored in &page {
                let known = self.archive.read(stored.key, 0, 0).await?.is_some();
                ensure!(
                    known,
                    "the object store contains other files, such as {}; name an empty store in CONFAB_OBJECTS",
                    stored.key
                );
            }
            match page.last() {
                Some(last) if page.len() == KEYS as usize => after = last.key,
                _ => return Ok(()),
            }
        }
    }

    async fn copy(&self, from: &dyn Objects, to: &dyn Objects, object: &Object) -> anyhow::Result<()> {
        let content = open(from, object).await?;
        let mut writer = to.create(object.key, self.memory.parts(Uuid::nil())).await?;
        read(content, object, async |chunk| Ok(writer.write(chunk).await?)).await?;
        match writer.finish().await {
            Err(error) if error.code == Code::Conflict => {
                check(to, object).await.context("an object with that key exists")
            }
            finished => Ok(finished?),
        }
    }
}

/// Adds the setting to an error of the store.
fn with_setting(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Error>() {
        error.context(
            "the object store (CONFAB_OBJECTS) is unreachable or rejects the request; the log contains the reason",
        )
    } else {
        error
    }
}

/// Runs `work` for each object of these files and tallies the objects in order. Retries while a store is unreachable.
async fn each(
    files: impl BufRead,
    done: &str,
    work: impl AsyncFn(&Object) -> anyhow::Result<()>,
) -> anyhow::Result<Tally> {
    let (mut tally, mut progress) = (Tallying::default(), Progress::new(done));
    let objects = stream::iter(rows(&FILES, files)).map(|row| {
        let work = &work;
        async move {
            let object = Object::of(&row?)?;
            let mut tries = 0;
            while let Err(error) = work(&object).await {
                let passes = error
                    .downcast_ref()
                    .is_some_and(|error: &Error| matches!(error.code, Code::Unavailable | Code::Timeout));
                if !passes || tries == RETRIES {
                    return Err(error.context(format!("the content of file {}", object.key)));
                }
                tries += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Ok(object)
        }
    });
    let mut objects = objects.buffered(AT_ONCE);
    while let Some(Object { key, size, sha256 }) = objects.try_next().await? {
        tally.line(format!("{key} {size} {sha256}\n").as_bytes());
        progress.add(1);
    }
    Ok(tally.finish())
}

impl Object {
    fn of(row: &Row) -> anyhow::Result<Self> {
        match &row[..] {
            [Value::Id(key), Value::Number(size), Value::Text(sha256), ..] => {
                Ok(Self { key: *key, size: (*size).try_into()?, sha256: sha256.clone() })
            }
            _ => bail!("a file has no object"),
        }
    }
}

async fn check(at: &dyn Objects, object: &Object) -> anyhow::Result<()> {
    read(open(at, object).await?, object, async |_| Ok(())).await
}

async fn open(at: &dyn Objects, object: &Object) -> anyhow::Result<Content> {
    at.read(object.key, 0, object.size).await?.context("it is missing")
}

/// Forwards the content of an object, and checks at the end that it matches its row.
async fn read(
    mut content: Content,
    object: &Object,
    mut to: impl AsyncFnMut(bytes::Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut size, mut sum) = (0, digest::Context::new(&SHA256));
    while let Some(chunk) = content.try_next().await? {
        size += chunk.len() as u64;
        sum.update(&chunk);
        to(chunk).await?;
    }
    ensure!(size == object.size && hex(sum.finish().as_ref()) == object.sha256, "it is damaged");
    Ok(())
}

#[cfg(test)]
mod tests {
    use confab_common::testing;

    use super::*;

    /// Creates two stores, and the lines of the files whose content the first store has.
    async fn copier(contents: &[&'static str]) -> (ObjectCopier, String) {
        let copier = ObjectCopier {
            store: object::in_directory(testing::directory()),
            archive: object::in_directory(testing::directory().join("new")),
            memory: Memory::new(MEMORY),
        };
        let mut lines = String::new();
        for content in contents {
            let (key, sha256) = (Uuid::now_v7(), hex(digest::digest(&SHA256, content.as_bytes()).as_ref()));
            put(&*copier.store, key, content).await;
            let rest = vec!["null"; FILES.columns().count() - 3].join(",");
            lines += &format!("[\"{key}\",{},\"{sha256}\",{rest}]\n", content.len());
        }
        (copier, lines)
    }

    async fn put(objects: &dyn Objects, key: Uuid, content: &'static str) {
        let mut writer = objects.create(key, Memory::new(MEMORY).parts(key)).await.unwrap();
        writer.write(content.into()).await.unwrap();
        writer.finish().await.unwrap();
    }

    /// Returns a copier in the other direction, to an empty store.
    fn back(copier: ObjectCopier) -> ObjectCopier {
        ObjectCopier { store: object::in_directory(testing::directory()), ..copier }
    }

    fn key(line: &str) -> Uuid {
        line[2..38].parse().unwrap()
    }

    #[tokio::test]
    async fn objects_survive_export_import_and_a_second_import() {
        let (copier, files) = copier(&["", "a", "b"]).await;
        let exported = copier.export(files.as_bytes()).await.unwrap();
        assert_eq!(exported.rows, 3);
        assert_eq!(copier.verify(files.as_bytes()).await.unwrap(), exported);
        let copier = back(copier);
        copier.ensure_empty().await.unwrap();
        for _ in 0..2 {
            assert_eq!(copier.import(files.as_bytes()).await.unwrap(), exported);
            copier.ensure_empty().await.unwrap();
        }
        put(&*copier.store, Uuid::now_v7(), "another owner's object").await;
        let error = copier.ensure_empty().await.unwrap_err().to_string();
        assert!(error.contains("contains other files"), "{error}");
    }

    #[tokio::test]
    async fn missing_and_damaged_objects_are_detected() {
        let (copier, files) = copier(&["one", "two"]).await;
        let key = key(files.lines().nth(1).unwrap());
        let failed = async |outcome: anyhow::Result<Tally>, how: &str| {
            assert_eq!(format!("{:#}", outcome.unwrap_err()), format!("the content of file {key}: {how}"));
        };
        copier.export(files.as_bytes()).await.unwrap();
        copier.archive.delete(key).await.unwrap();
        failed(copier.verify(files.as_bytes()).await, "it is missing").await;
        copier.store.delete(key).await.unwrap();
        let error = format!("{:#}", copier.export(files.as_bytes()).await.unwrap_err());
        assert_eq!(
            error,
            format!(
                "delete the file through the API, or restore its content: the content of file {key}: it is missing"
            )
        );
        let copier = back(copier);
        failed(copier.import(files.as_bytes()).await, "it is missing").await;
        put(&*copier.archive, key, "owt").await;
        failed(copier.verify(files.as_bytes()).await, "it is damaged").await;
        failed(copier.import(files.as_bytes()).await, "it is damaged").await;
        assert!(copier.store.read(key, 0, 0).await.unwrap().is_none(), "a damaged object must not be stored");
        put(&*copier.store, key, "another").await;
        copier.archive.delete(key).await.unwrap();
        put(&*copier.archive, key, "two").await;
        failed(copier.import(files.as_bytes()).await, "an object with that key exists: it is damaged").await;
    }
}
