//! The rules of files: which users may read, list, delete, sign and attach them. Uploads are in [`crate::upload`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result, cursor};
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::cleanup::Cleanup;
use crate::memory::Memory;
use crate::object::Content;
use crate::owned::Owned;
use crate::permits::{TransferPermit, TransferPermits};
use crate::quota::Quota;
use crate::relay::Relay;
use crate::rights::{Access, Rights};
use crate::store::{File, Forget, Of, Position, Store, User};

/// Time limit for one step of the object store.
pub const OBJECT_STEP_LIMIT: Duration = Duration::from_secs(30);
/// How long a reader waits for a file whose event is in the log but not recorded in the store yet.
const READY_WAIT: Duration = Duration::from_secs(1);
/// How long a deletion waits for the log.
const LOG_WAIT: Duration = Duration::from_secs(1);
/// How often a change is retried because a concurrent change was faster.
const TRIES: usize = 3;

/// The files and the operations on them.
pub struct Files {
    pub store: Arc<dyn Store>,
    pub objects: Arc<Owned>,
    pub rights: Rights,
    pub relay: Arc<Relay>,
    pub cleanup: Arc<Cleanup>,
    /// Largest file, in bytes.
    pub max_size: u64,
    /// What one user may store. The store decides; the service rejects uploads earlier if it can.
    pub quota: Quota,
    pub links: LinkLife,
    /// Permits for uploads, and memory for their parts.
    pub uploads: TransferPermits,
    pub downloads: TransferPermits,
    pub memory: Memory,
}

/// How long links are valid.
#[derive(Debug, Clone, Copy)]
pub struct LinkLife {
    /// Links to audio and video.
    pub media: Duration,
    /// Links to all other files.
    pub other: Duration,
}

impl LinkLife {
    fn of(self, file: &File) -> Duration {
        let is_media = ["audio/", "video/"].iter().any(|family| file.content_type.starts_with(family));
        if is_media { self.media } else { self.other }
    }
}

/// The reader of a file.
#[derive(Debug, Clone)]
pub enum Reader {
    /// A user with a token.
    User(User),
    /// The bearer of a link.
    Link(Link),
    /// A server key without a user, which may read the files of all rooms.
    Moderator(User),
    /// Any client that is shown the picture of a user, with the rights of the user.
    PictureOf(User),
    /// An anonymous reader, who may read files in public rooms.
    Anonymous,
}

impl Reader {
    fn user(&self) -> Option<Uuid> {
        match self {
            Self::User(user) | Self::PictureOf(user) => Some(user.id),
            Self::Link(_) | Self::Moderator(_) | Self::Anonymous => None,
        }
    }

    /// Returns the user whose permits a download takes. All links to one uploader's files share their own permits, and so
    /// do all pictures: any client can request any number of them.
    fn takes_permit_of(&self, file: &File) -> Uuid {
        match self {
            Self::User(user) | Self::Moderator(user) => user.id,
            Self::Link(_) => Uuid::from_u128(!file.uploader.id.as_u128()),
            Self::PictureOf(_) => Uuid::max(),
            Self::Anonymous => Uuid::nil(),
        }
    }

    fn is_no_link(&self) -> Result<()> {
        if let Self::Link(_) | Self::PictureOf(_) = self { Err(no_token()) } else { Ok(()) }
    }
}

/// The parameters of a link to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub expires_at_ms: i64,
    pub signature: String,
}

/// A page of a list.
pub struct Page {
    pub files: Vec<File>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl Files {
    /// Returns one file, if it is visible to the reader.
    pub async fn get(&self, id: Uuid, reader: &Reader) -> Result<File> {
        let file = self.find(id, reader.user()).await?;
        if !self.may_read(&file, reader).await? {
            return Err(unknown());
        }
        self.marked_ready(file).await
    }

    /// Returns a file, whether or not the caller may read it. A file that does not exist costs a call to the room
    /// service, like a file of a room that is hidden from the caller: the time of the answer must not tell them apart.
    async fn find(&self, id: Uuid, caller: Option<Uuid>) -> Result<File> {
        match self.store.get(id).await? {
            Some(file) if file.room.is_some() || Some(file.uploader.id) == caller => Ok(file),
            file => {
                self.rights.now(Uuid::nil(), caller).await?;
                file.ok_or_else(unknown)
            }
        }
    }

    /// Returns a range of a file's content; a length of 0 means the rest of the file.
    pub async fn download(
        &self,
        id: Uuid,
        reader: &Reader,
        offset: u64,
        length: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let file = self.get(id, reader).await?;
        if file.size == 0 && offset == 0 {
            return Ok(stream::empty().boxed());
        }
        let rest = file.size.checked_sub(offset).filter(|rest| *rest > 0);
        let rest =
            rest.ok_or_else(|| Error::new(Code::RangeNotSatisfiable, format!("the file has {} bytes", file.size)))?;
        let length = if length == 0 { rest } else { length.min(rest) };
        let permit = self.downloads.take(reader.takes_permit_of(&file)).await?;
        match within_step_limit(self.objects.read(id, offset, length)).await? {
            Some(content) => Ok(whole(content, length, permit)),
            None if self.store.get(id).await?.is_none() => Err(unknown()),
            None => Err(Error::internal(format_args!("the content of file {id} is missing"))),
        }
    }

    /// Lists a room's files or, without a room, the reader's own uploads in rooms that the reader may read and without a
    /// room, newest first.
    pub async fn list(&self, reader: &Reader, room: Option<Uuid>, limit: u32, page: &str) -> Result<Page> {
        if !(1..=200).contains(&limit) {
            return Err(Error::field("limit", "must be from 1 to 200"));
        }
        // A link is for one file, not for lists.
        reader.is_no_link()?;
        let (of, whose) = match room {
            Some(room) if self.access(room, reader).await?.read => (Of::Room(room), room),
            Some(_) => return Err(Error::not_found("room")),
            None => {
                let user = reader.user().ok_or_else(no_token)?;
                (Of::Uploader(user), user)
            }
        };
        // A cursor names its list: on another list it would skip files.
        let below = match page {
            "" => Position::TOP,
            page => match cursor::decode::<(i64, Uuid, Uuid)>(page)? {
                (created_at_ms, id, of) if of == whose => Position { created_at_ms, id },
                _ => return Err(Error::field("cursor", "belongs to another list")),
            },
        };
        let (files, next) = match of {
            Of::Uploader(user) => self.list_own(user, below, limit).await?,
            Of::Room(_) => {
                let mut files = self.store.list(of, below, limit + 1).await?;
                let more = files.len() > limit as usize;
                files.truncate(limit as usize);
                let last = files.last().filter(|_| more).map(File::position);
                (files, last)
            }
        };
        Ok(Page { next: next.map(|at| cursor::encode(&(at.created_at_ms, at.id, whose))), files })
    }

    /// Deletes a file for its uploader, a manager of its room, or a moderator if it has a room. The log is updated
    /// before the answer if possible within one second, otherwise soon after. A repeat of the same operation succeeds,
    /// too.
    pub async fn delete(&self, id: Uuid, caller: &User, is_moderator: bool, operation: Option<Uuid>) -> Result<()> {
        match self.try_to_delete(id, caller, is_moderator, operation).await {
            Err(error) if error.code == Code::NotFound && self.store.operations().has_begun(operation, id).await? => {
                Ok(())
            }
            deleted => deleted,
        }
    }

    async fn try_to_delete(&self, id: Uuid, caller: &User, is_moderator: bool, operation: Option<Uuid>) -> Result<()> {
        let file = self.find(id, Some(caller.id)).await?;
        // In a private room, the uploader's right ends with the membership.
        if let Some(room) = file.room {
            let access = if is_moderator {
                self.rights.of_moderator(room).await?
            } else {
                self.rights.now(room, Some(caller.id)).await?
            };
            if !access.read {
                return Err(unknown());
            }
            if file.uploader.id != caller.id && !access.manage {
                return Err(Error::new(
                    Code::Forbidden,
                    "only the file's uploader or an admin of its room may do this",
                ));
            }
        } else if file.uploader.id != caller.id {
            return Err(unknown());
        }
        let file = self.marked_ready(file).await?;
        self.store.operations().begin(operation, id).await?;
        if !self.store.delete(id).await? {
            return Err(unknown());
        }
        // The file may have been attached since it was read: its entry in the queue then has the room.
        if let Some(room) = file.room {
            let _ = tokio::time::timeout(LOG_WAIT, self.cleanup.forget(&[Forget { file: id, room }])).await;
        }
        Ok(())
    }

    /// Deletes those of these files that belong to the room, because their last message was deleted. The log has marked
    /// them as deleted before. Idempotent.
    pub async fn drop_of_room(&self, room: Uuid, ids: Vec<Uuid>) -> Result<()> {
        self.store.drop_of_room(ids, room).await
    }

    /// Signs a link with which any client can read a file for a limited time.
    pub async fn sign(&self, id: Uuid, reader: &Reader) -> Result<Link> {
        // Otherwise a link could be renewed without end.
        reader.is_no_link()?;
        if let Reader::Moderator(_) = reader {
            return Err(no_token());
        }
        let file = self.get(id, reader).await?;
        let expires_at_ms = now_ms() + self.links.of(&file).as_millis() as i64;
        let user = match file.room {
            Some(room) if self.rights.of(room, reader.user()).await?.private => reader.user(),
            _ => None,
        };
        Ok(Link { expires_at_ms, signature: file.link_key.sign(id, expires_at_ms, user) })
    }

    /// Attaches files to a room: the caller's files without a room, and files that are already in this room; all or
    /// none. Returns them in the order of `ids`.
    pub async fn attach(&self, caller: &User, room: Uuid, ids: &[Uuid]) -> Result<Vec<File>> {
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for _ in 0..TRIES {
            let files = try_join_all(ids.iter().map(|id| self.attachable(*id, caller, room))).await?;
            if self.store.attach(distinct.clone(), room, caller.id).await? {
                return Ok(files.into_iter().map(|file| File { room: Some(room), ..file }).collect());
            }
        }
        Err(Error::unavailable("the file"))
    }

    async fn attachable(&self, id: Uuid, caller: &User, room: Uuid) -> Result<File> {
        let file = self.find(id, Some(caller.id)).await?;
        match file.room {
            Some(its) if its == room => self.marked_ready(file).await,
            None if file.uploader.id == caller.id => Ok(file),
            Some(other) if self.rights.of(other, Some(caller.id)).await?.read => {
                Err(Error::new(Code::Conflict, "the file belongs to another room"))
            }
            _ => Err(unknown()),
        }
    }

    /// Returns the permissions of a reader without a link.
    async fn access(&self, room: Uuid, reader: &Reader) -> Result<Access> {
        match reader {
            Reader::Moderator(_) => self.rights.of_moderator(room).await,
            _ => self.rights.of(room, reader.user()).await,
        }
    }

    async fn may_read(&self, file: &File, reader: &Reader) -> Result<bool> {
        match (reader, file.room) {
            (Reader::Link(link), room) => {
                let signed = file.link_key.verifies(file.id, link.expires_at_ms, &link.signature);
                match (signed.filter(|_| now_ms() < link.expires_at_ms), room) {
                    (Some(user), Some(room)) => Ok(self.rights.of(room, user).await?.read),
                    (signed, _) => Ok(signed.is_some()),
                }
            }
            (_, Some(room)) => Ok(self.access(room, reader).await?.read),
            (_, None) => Ok(reader.user() == Some(file.uploader.id)),
        }
    }

    /// Waits until the file is ready. A caller has a pending file's id from the file's event, so the log has the event
    /// and only the record is missing.
    async fn marked_ready(&self, file: File) -> Result<File> {
        if file.ready {
            return Ok(file);
        }
        match tokio::time::timeout(READY_WAIT, self.relay.relay(&file)).await {
            Ok(Ok(_)) => Ok(File { ready: true, ..file }),
            Ok(Err(_)) => Err(unknown()),
            Err(_) => Err(Error::unavailable("the file")),
        }
    }
}

/// Runs one step of the object store, with a time limit.
pub async fn within_step_limit<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(OBJECT_STEP_LIMIT, step).await.unwrap_or_else(|_| Err(Error::unavailable("file storage")))
}

/// Returns the bytes of a range, either complete or with an error at the end. They occupy their permit until they are
/// read or dropped.
fn whole(content: Content, length: u64, permit: TransferPermit) -> BoxStream<'static, Result<Bytes>> {
    let bytes = stream::try_unfold((content, length), piece);
    bytes.inspect_ok(move |_| _ = &permit).boxed()
}

async fn piece((mut content, left): (Content, u64)) -> Result<Option<(Bytes, (Content, u64))>> {
    if left == 0 {
        return Ok(None);
    }
    let bytes = within_step_limit(async { content.next().await.transpose() }).await?;
    let bytes = bytes.ok_or_else(|| Error::internal("the object is shorter than recorded"))?;
    let left =
        left.checked_sub(bytes.len() as u64).ok_or_else(|| Error::internal("the object is longer than recorded"))?;
    Ok(Some((bytes, (content, left))))
}

/// The error for an anonymous caller.
pub fn no_token() -> Error {
    Error::new(Code::Unauthorized, "a token is required")
}

/// The error for an unknown file, or a file that is hidden from the caller.
pub fn unknown() -> Error {
    Error::not_found("file")
}
