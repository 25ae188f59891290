//! Transfers the files' bytes to an archive and back. The files' rows, which are transferred too, say what the bytes
//! must be.

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

/// Objects transferred at once.
const AT_ONCE: usize = 8;
/// How often an object is retried while a store is away.
const RETRIES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// Memory for the parts being transferred, in bytes.
const MEMORY: usize = 128 << 20;
/// Keys per page of a list.
const KEYS: u32 = 1000;

/// The configured object store, and the archive.
pub struct Carrier {
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

impl Carrier {
    /// Transfers between the configured store and an archive's directory of objects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(config: &FileConfig, storage: &StorageConfig, archive: PathBuf) -> anyhow::Result<Self> {
        // The store may hold files larger than the current limit.
        let store = object::open(&config.objects, &storage.data_dir, LARGEST)?;
        Ok(Self { store, archive: object::in_directory(archive), memory: Memory::new(MEMORY) })
    }

    /// Copies the bytes of the files in these lines into the archive.
    ///
    /// # Errors
    /// When they cannot be copied, or do not match their rows.
    pub async fn export(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        let copied = each(files, "objects copied", async |object| self.copy(&*self.store, &*self.archive, object).await).await;
        copied.map_err(|error| match error.is::<Error>() {
            true => told(error),
            false => error.context("delete the file through the API, or put its bytes back"),
        })
    }

    /// Checks the bytes of these files in the archive.
    ///
    /// # Errors
    /// When they are missing or do not match their rows.
    pub async fn verify(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        each(files, "objects read", async |object| check(&*self.archive, object).await).await
    }

    /// Copies the bytes of these files into the store and reads them back. Objects that an earlier import left there
    /// are checked and kept.
    ///
    /// # Errors
    /// When they cannot be copied, or the stored bytes do not match their rows.
    pub async fn import(&self, files: impl BufRead) -> anyhow::Result<Tally> {
        let carry = async |object: &Object| {
            self.copy(&*self.archive, &*self.store, object).await?;
            check(&*self.store, object).await
        };
        each(files, "objects copied", carry).await.map_err(told)
    }

    /// Checks that no other installation owns the store, and that it has no objects besides the archive's: a sweep
    /// would soon remove those.
    ///
    /// # Errors
    /// When one of these is so, or the store does not answer.
    pub async fn ensure_empty(&self) -> anyhow::Result<()> {
        let owner = self.store.owner().await.map_err(|error| told(error.into()))?;
        ensure!(
            owner.is_none(),
            "the object store belongs to another installation; name another bucket, prefix or directory in CONFAB_OBJECTS or, if \
             that installation is gone, remove the object .confab from this one"
        );
        let mut after = Uuid::nil();
        loop {
            let page = self.store.list(after, KEYS).await.map_err(|error| told(error.into()))?;
            for stored in &page {
                let known = self.archive.read(stored.key, 0, 0).await?.is_some();
                ensure!(known, "the object store has files of its own, such as {}; name an empty one in CONFAB_OBJECTS", stored.key);
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
            Err(error) if error.code == Code::Conflict => check(to, object).await.context("an object of that key is there"),
            finished => Ok(finished?),
        }
    }
}

/// Adds to a store's error where that error is explained.
fn told(error: anyhow::Error) -> anyhow::Error {
    match error.is::<Error>() {
        true => error.context("the store of the files' bytes (CONFAB_OBJECTS) refuses or is away; the log says which"),
        false => error,
    }
}

/// Runs `work` for each object of these files and tallies the objects in order. Retries while a store is away.
async fn each(files: impl BufRead, done: &str, work: impl AsyncFn(&Object) -> anyhow::Result<()>) -> anyhow::Result<Tally> {
    let (mut tally, mut progress) = (Tallying::default(), Progress::new(done));
    let objects = stream::iter(rows(&FILES, files)).map(|row| {
        let work = &work;
        async move {
            let object = Object::of(&row?)?;
            let mut tries = 0;
            while let Err(error) = work(&object).await {
                let passes = error.downcast_ref().is_some_and(|error: &Error| matches!(error.code, Code::Unavailable | Code::Timeout));
                if !passes || tries == RETRIES {
                    return Err(error.context(format!("the bytes of file {}", object.key)));
                }
                tries += 1;
                tokio::time::sleep(PAUSE).await;
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
            _ => bail!("a file without an object"),
        }
    }
}

async fn check(at: &dyn Objects, object: &Object) -> anyhow::Result<()> {
    read(open(at, object).await?, object, async |_| Ok(())).await
}

async fn open(at: &dyn Objects, object: &Object) -> anyhow::Result<Content> {
    at.read(object.key, 0, object.size).await?.context("they are missing")
}

/// Passes on the bytes of an object, and checks at the end that they match its row.
async fn read(mut content: Content, object: &Object, mut to: impl AsyncFnMut(bytes::Bytes) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (mut size, mut sum) = (0, digest::Context::new(&SHA256));
    while let Some(chunk) = content.try_next().await? {
        size += chunk.len() as u64;
        sum.update(&chunk);
        to(chunk).await?;
    }
    ensure!(size == object.size && hex(sum.finish().as_ref()) == object.sha256, "they are damaged");
    Ok(())
}

#[cfg(test)]
mod tests {
    use confab_common::testing;

    use super::*;

    /// Two stores, and the lines of the files whose bytes the first store has.
    async fn carrier(contents: &[&'static str]) -> (Carrier, String) {
        let carrier = Carrier {
            store: object::in_directory(testing::directory()),
            archive: object::in_directory(testing::directory().join("new")),
            memory: Memory::new(MEMORY),
        };
        let mut lines = String::new();
        for content in contents {
            let (key, sha256) = (Uuid::now_v7(), hex(digest::digest(&SHA256, content.as_bytes()).as_ref()));
            put(&*carrier.store, key, content).await;
            let rest = vec!["null"; FILES.columns().count() - 3].join(",");
            lines += &format!("[\"{key}\",{},\"{sha256}\",{rest}]\n", content.len());
        }
        (carrier, lines)
    }

    async fn put(objects: &dyn Objects, key: Uuid, content: &'static str) {
        let mut writer = objects.create(key, Memory::new(MEMORY).parts(key)).await.unwrap();
        writer.write(content.into()).await.unwrap();
        writer.finish().await.unwrap();
    }

    /// Transfers in the other direction, to an empty store.
    fn back(carrier: Carrier) -> Carrier {
        Carrier { store: object::in_directory(testing::directory()), ..carrier }
    }

    fn key(line: &str) -> Uuid {
        line[2..38].parse().unwrap()
    }

    #[tokio::test]
    async fn objects_survive_export_and_import_and_a_repeat() {
        let (carrier, files) = carrier(&["", "a", "b"]).await;
        let exported = carrier.export(files.as_bytes()).await.unwrap();
        assert_eq!(exported.rows, 3);
        assert_eq!(carrier.verify(files.as_bytes()).await.unwrap(), exported);
        let carrier = back(carrier);
        carrier.ensure_empty().await.unwrap();
        for _ in 0..2 {
            assert_eq!(carrier.import(files.as_bytes()).await.unwrap(), exported);
            carrier.ensure_empty().await.unwrap();
        }
        put(&*carrier.store, Uuid::now_v7(), "somebody else's").await;
        let error = carrier.ensure_empty().await.unwrap_err().to_string();
        assert!(error.contains("has files of its own"), "{error}");
    }

    #[tokio::test]
    async fn missing_and_damaged_bytes_are_found() {
        let (carrier, files) = carrier(&["one", "two"]).await;
        let key = key(files.lines().nth(1).unwrap());
        let failed = async |outcome: anyhow::Result<Tally>, how: &str| {
            assert_eq!(format!("{:#}", outcome.unwrap_err()), format!("the bytes of file {key}: {how}"));
        };
        carrier.export(files.as_bytes()).await.unwrap();
        carrier.archive.delete(key).await.unwrap();
        failed(carrier.verify(files.as_bytes()).await, "they are missing").await;
        carrier.store.delete(key).await.unwrap();
        let error = format!("{:#}", carrier.export(files.as_bytes()).await.unwrap_err());
        assert_eq!(error, format!("delete the file through the API, or put its bytes back: the bytes of file {key}: they are missing"));
        let carrier = back(carrier);
        failed(carrier.import(files.as_bytes()).await, "they are missing").await;
        put(&*carrier.archive, key, "owt").await;
        failed(carrier.verify(files.as_bytes()).await, "they are damaged").await;
        failed(carrier.import(files.as_bytes()).await, "they are damaged").await;
        assert!(carrier.store.read(key, 0, 0).await.unwrap().is_none(), "what is damaged does not arrive");
        put(&*carrier.store, key, "another").await;
        carrier.archive.delete(key).await.unwrap();
        put(&*carrier.archive, key, "two").await;
        failed(carrier.import(files.as_bytes()).await, "an object of that key is there: they are damaged").await;
    }
}
