//! Objects as files in a directory: written under a temporary name, made durable, then renamed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::future::pending;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use confab_common::{Code, Error, Result, identity};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

use super::owner::NAME;
use super::{Content, Found, Objects, Owner, Stored, Writer};
use crate::memory::{Filling, Parts};

/// Bytes read or written at once (256 KiB).
const PIECE: usize = 256 * 1024;

/// Objects below one directory, as `0190/a3/0190a3b4-….`: two folders by the key's first digits, so that folders sort
/// like keys. A folder contains the uploads of about five hours.
pub struct Directory(Arc<Root>);

struct Root {
    path: PathBuf,
    // Locked only for the rename, on a thread that may block.
    naming: Mutex<()>,
}

impl Directory {
    /// Creates a store below `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Root { path, naming: Mutex::new(()) }))
    }

    /// Runs disk work on a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let root = self.0.clone();
        blocking(move || work(&root)).boxed()
    }
}

impl Objects for Directory {
    fn create(&self, key: Uuid, parts: Parts) -> BoxFuture<'_, Result<Box<dyn Writer>>> {
        let begin = async move {
            let root = self.0.clone();
            let (file, temp) = self.run(Root::temp_file).await?;
            let filling = parts.part(PIECE);
            let writer = FileWriter { root, key, temp, parts, filling, file: FileState::Idle(file) };
            Ok(Box::new(writer) as Box<dyn Writer>)
        };
        begin.boxed()
    }

    fn read(&self, key: Uuid, offset: u64, length: u64) -> BoxFuture<'_, Result<Option<Content>>> {
        let open = self.run(move |root| match File::open(root.file(key)) {
            Ok(mut file) => file.seek(SeekFrom::Start(offset)).map(|_| Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        async move { Ok(open.await?.map(|file| stream::try_unfold((file, length), piece).boxed())) }.boxed()
    }

    fn delete(&self, key: Uuid) -> BoxFuture<'_, Result<()>> {
        self.run(move |root| absent_is_fine(std::fs::remove_file(root.file(key))))
    }

    fn list(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>> {
        self.run(move |root| root.list(after, limit as usize))
    }

    fn abandon(&self, before: SystemTime) -> BoxFuture<'_, Result<u64>> {
        self.run(move |root| root.abandon(before))
    }

    fn owner(&self) -> BoxFuture<'_, Result<Option<Found>>> {
        self.run(|root| root.owner())
    }

    fn claim(&self, owner: Owner) -> BoxFuture<'_, Result<bool>> {
        self.run(move |root| root.claim(owner))
    }

    /// The errors name the path.
    fn check(&self, _: Owner) -> BoxFuture<'_, std::result::Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn set_owner(&self, owner: Owner, _: Option<&Found>) -> BoxFuture<'_, Result<()>> {
        self.run(move |root| root.set_owner(owner))
    }
}

impl Root {
    fn temp_directory(&self) -> PathBuf {
        self.path.join("drafts")
    }

    fn file(&self, key: Uuid) -> PathBuf {
        let name = key.to_string();
        self.path.join(&name[..4]).join(&name[4..6]).join(name)
    }

    /// Creates a temporary file that is removed when the second value is dropped.
    fn temp_file(&self) -> io::Result<(File, TempFile)> {
        self.make(&self.temp_directory())?;
        let temp = TempFile(self.temp_directory().join(Uuid::new_v4().to_string()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp.0)?;
        Ok((file, temp))
    }

    /// Creates a folder and its parents durably.
    fn make(&self, folder: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make(folder.parent().ok_or(error)?)?;
                return self.make(folder);
            }
            made => made?,
        }
        sync(folder.parent().unwrap_or(folder))
    }

    fn publish(&self, temp: &Path, key: Uuid) -> io::Result<()> {
        let file = self.file(key);
        let folder = file.parent().unwrap_or(&self.path);
        self.make(folder)?;
        let naming = self.naming.lock();
        if file.try_exists()? {
            return Err(ErrorKind::AlreadyExists.into());
        }
        std::fs::rename(temp, &file)?;
        drop(naming);
        sync(folder)
    }

    fn list(&self, after: Uuid, limit: usize) -> io::Result<Vec<Stored>> {
        let last = after.to_string();
        let mut found = Vec::new();
        for upper in names(&self.path, 4, &last[..4])? {
            for lower in names(&self.path.join(&upper), 2, if upper == last[..4] { &last[4..6] } else { "" })? {
                let folder = self.path.join(&upper).join(&lower);
                for name in names(&folder, last.len(), &last)? {
                    let Some(key) = Uuid::try_parse(&name).ok().filter(|key| *key > after) else { continue };
                    // The file may have been deleted since the folder was read.
                    let Ok(facts) = folder.join(&name).metadata() else { continue };
                    found.push(Stored { key, modified: facts.modified()? });
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }

    fn owner(&self) -> io::Result<Option<Found>> {
        let mut file = match File::open(self.path.join(NAME)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let owner = Owner::from_bytes(&text);
        let copied = owner.file != identity::of_file(&file.metadata()?);
        Ok(Some(Found { owner, copied, version: None }))
    }

    fn claim(&self, owner: Owner) -> io::Result<bool> {
        self.make(&self.path)?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(NAME));
        match opened {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            file => write_owner(file?, owner)?,
        }
        sync(&self.path).map(|()| true)
    }

    fn set_owner(&self, owner: Owner) -> io::Result<()> {
        let (file, temp) = self.temp_file()?;
        write_owner(file, owner)?;
        std::fs::rename(&temp.0, self.path.join(NAME))?;
        sync(&self.path)
    }

    fn abandon(&self, before: SystemTime) -> io::Result<u64> {
        let mut abandoned = 0;
        for name in names(&self.temp_directory(), 36, "")? {
            let temp = self.temp_directory().join(name);
            let Ok(facts) = temp.metadata() else { continue };
            if facts.modified()? < before {
                absent_is_fine(std::fs::remove_file(temp))?;
                abandoned += 1;
            }
        }
        Ok(abandoned)
    }
}

/// Writes an owner object that names its own file.
fn write_owner(mut file: File, owner: Owner) -> io::Result<()> {
    let owner = Owner { file: identity::of_file(&file.metadata()?), ..owner };
    file.write_all(owner.to_text().map_err(io::Error::other)?.as_bytes())?;
    file.sync_all()
}

/// Returns the names in a folder with this length and not below `from`, in order; empty when the folder does not exist.
fn names(folder: &Path, length: usize, from: &str) -> io::Result<Vec<String>> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.len() == length && name.as_str() >= from {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A temporary file that is removed unless it has been renamed.
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct FileWriter {
    root: Arc<Root>,
    key: Uuid,
    temp: TempFile,
    parts: Parts,
    filling: Filling,
    file: FileState,
}

/// The file, or the task that writes a chunk to it while the next chunk is filled.
enum FileState {
    Idle(File),
    Busy(JoinHandle<Result<File>>),
    Broken,
}

impl FileWriter {
    async fn flush(&mut self) -> Result<()> {
        let mut file = self.written().await?;
        let (piece, memory) = std::mem::replace(&mut self.filling, self.parts.part(PIECE)).send();
        self.file = FileState::Busy(spawn_blocking(move || {
            let _memory = memory;
            file.write_all(&piece).map(|()| file).map_err(failed)
        }));
        Ok(())
    }

    async fn written(&mut self) -> Result<File> {
        if let FileState::Busy(piece) = &mut self.file {
            let written = piece.await;
            self.file = FileState::Broken;
            self.file = FileState::Idle(written.map_err(Error::internal)??);
        }
        match std::mem::replace(&mut self.file, FileState::Broken) {
            FileState::Idle(file) => Ok(file),
            _ => Err(Error::unavailable("file storage")),
        }
    }
}

impl Writer for FileWriter {
    fn write(&mut self, mut chunk: Bytes) -> BoxFuture<'_, Result<()>> {
        let write = async move {
            while !chunk.is_empty() {
                self.filling.take(&mut chunk).await?;
                if self.filling.is_full() {
                    self.flush().await?;
                }
            }
            Ok(())
        };
        write.boxed()
    }

    /// Never completes: a disk fails at once, so the next write returns the error.
    fn failed(&mut self) -> BoxFuture<'_, Error> {
        pending().boxed()
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let finish = async move {
            self.flush().await?;
            let file = self.written().await?;
            let Self { root, key, temp, .. } = *self;
            blocking(move || file.sync_all().and_then(|()| root.publish(&temp.0, key))).await
        };
        finish.boxed()
    }
}

/// Reads the next chunk of a file. Returns the chunk and the state after it.
async fn piece((mut file, left): (File, u64)) -> Result<Option<(Bytes, (File, u64))>> {
    if left == 0 {
        return Ok(None);
    }
    blocking(move || {
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        file.read_exact(&mut piece)?;
        let left = left - piece.len() as u64;
        Ok(Some((piece.into(), (file, left))))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::internal)?.map_err(failed)
}

/// Converts an error of the disk.
fn failed(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => Error::new(Code::Conflict, "the object already exists"),
        ErrorKind::UnexpectedEof => Error::internal("the object is shorter than recorded"),
        _ => {
            tracing::error!(%error, "cannot use the directory of objects");
            Error::unavailable("file storage")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use confab_common::testing;

    use super::*;
    use crate::memory::Memory;

    fn parts() -> Parts {
        Memory::new(1 << 20).parts(Uuid::nil())
    }

    #[tokio::test]
    async fn objects_are_readable_only_by_their_owner() {
        let path = testing::directory().join("data/objects");
        let objects = Directory::new(path.clone());
        let key = Uuid::now_v7();
        let mut writer = objects.create(key, parts()).await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        writer.finish().await.unwrap();
        let file = objects.0.file(key);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        for folder in file.ancestors().skip(1).take_while(|folder| folder.starts_with(&path)) {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
    }

    #[tokio::test]
    async fn old_temporary_files_are_removed_but_not_new_ones() {
        let objects = Directory::new(testing::directory());
        let (_, old) = objects.0.temp_file().unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        File::options().write(true).open(&old.0).unwrap().set_modified(long_ago).unwrap();
        let (_, fresh) = objects.0.temp_file().unwrap();
        assert_eq!(objects.abandon(SystemTime::now() - Duration::from_secs(3600)).await.unwrap(), 1);
        assert!(!old.0.exists() && fresh.0.exists());
    }

    #[tokio::test]
    async fn disk_errors_are_unavailable() {
        let path = testing::directory().join("objects");
        std::fs::write(&path, "a file where a directory should be").unwrap();
        let objects = Directory::new(path);
        assert_eq!(objects.create(Uuid::now_v7(), parts()).await.err().unwrap().code, Code::Unavailable);
        assert_eq!(objects.list(Uuid::nil(), 1).await.unwrap_err().code, Code::Unavailable);
    }
}
