//! Uploads: the content is streamed to the object store; then the file's row is written, and the event is appended to
//! its room.

mod intake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use confab_common::clock::now_ms;
use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result};
use futures::stream::BoxStream;
use tokio::time::Instant;
use uuid::Uuid;

use crate::link::LinkKey;
use crate::metrics::UnderWay;
use crate::name;
use crate::object::Writer;
use crate::quota::Usage;
use crate::relay::Event;
use crate::service::{Files, OBJECT_STEP_LIMIT, within_step_limit};
use crate::store::{self, File, User};

use intake::Intake;

/// The timeout of a caller that does not send a timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2500);
/// The longest timeout that a caller can send.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The properties of a file that are known before its content.
#[derive(Debug, Clone)]
pub struct Begin {
    pub caller: User,
    /// As the client sent it.
    pub name: String,
    /// The client's claim.
    pub content_type: String,
    /// The minimum number of bytes that will arrive.
    pub at_least: u64,
    pub target: Target,
}

/// The room and the `clientMessageId` of an upload, as far as they are known yet.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub room: Option<Uuid>,
    pub client_message_id: Option<String>,
}

impl Target {
    /// Merges both; a field given twice must have the same value.
    fn and(self, later: Self) -> Result<Self> {
        Ok(Self {
            room: once("roomId", self.room, later.room)?,
            client_message_id: once("clientMessageId", self.client_message_id, later.client_message_id)?,
        })
    }
}

fn once<T: PartialEq>(field: &str, first: Option<T>, second: Option<T>) -> Result<Option<T>> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => Err(Error::field(field, "must be given once")),
        (first, second) => Ok(first.or(second)),
    }
}

/// A part after [`Begin`].
#[derive(Debug, Clone)]
pub enum Part {
    Chunk(Bytes),
    /// All bytes were sent. The caller waits this long for the answer, or the default time if it is zero.
    Finish(Target, Duration),
}

/// The result of an upload.
#[derive(Debug)]
pub struct Uploaded {
    pub file: File,
    /// The room's message, if the upload names a room.
    pub message: Option<Event>,
    /// Whether the result is an earlier upload with the same `clientMessageId`.
    pub duplicate: bool,
}

impl Files {
    /// Stores a file. No byte is kept unless the last part arrives.
    pub async fn upload(self: &Arc<Self>, begin: Begin, parts: BoxStream<'static, Result<Part>>) -> Result<Uploaded> {
        let measured = UnderWay::begin();
        let taken = self.take(begin, parts).await;
        measured.end(&taken);
        taken
    }

    async fn take(self: &Arc<Self>, begin: Begin, mut parts: BoxStream<'static, Result<Part>>) -> Result<Uploaded> {
        let Begin { caller, name, content_type, at_least, target } = begin;
        self.check_size(at_least)?;
        let permit = self.uploads.take(caller.id).await?;
        let usage = self.usage_if_new(caller.id, &target).await?;
        let check_quota = |size: u64| usage.map_or(Ok(()), |usage| self.quota.check(usage.with(size)));
        check_quota(at_least)?;
        if let Some(room) = target.room
            && let Some(first) = self.admit(room, &caller, target.client_message_id.as_deref(), DEFAULT_TIMEOUT).await?
        {
            return Ok(first);
        }
        let id = Uuid::now_v7();
        let mut writer = within_step_limit(self.objects.create(id, self.memory.parts(caller.id))).await?;
        let mut intake = Intake::default();
        let (late, timeout) = loop {
            let part = tokio::select! {
                part = intake.next(&mut parts) => part?,
                error = writer.failed() => return Err(error),
            };
            match part {
                Part::Chunk(chunk) => {
                    intake.take(&chunk);
                    self.check_size(intake.size())?;
                    check_quota(intake.size())?;
                    within_step_limit(writer.write(chunk)).await?;
                }
                Part::Finish(late, timeout) => break (late, timeout),
            }
        };
        let waits = if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout.min(MAX_TIMEOUT) };
        let deadline = Instant::now() + waits;
        let known = target.room;
        let Target { room, client_message_id } = target.and(late)?;
        let content = intake.finish(&content_type);
        let file = File {
            id,
            name: name::clean(&name),
            size: content.size,
            content_type: content.media.content_type,
            sha256: content.sha256,
            safe_inline: content.media.safe_inline,
            uploader: caller,
            created_at_ms: now_ms(),
            link_key: LinkKey::random()?,
            room,
            client_message_id,
            event: room.map(|_| Uuid::now_v7()),
            ready: room.is_none(),
        };
        // A separate task: if the caller disconnects now, the upload is still completed.
        let files = self.clone();
        let keeping = tokio::spawn(async move {
            let _permit = permit;
            let client_message_id = file.client_message_id.as_deref();
            if let Some(room) = room.filter(|_| known.is_none())
                && let Some(first) = files.admit(room, &file.uploader, client_message_id, waits).await?
            {
                return Ok(first);
            }
            files.keep(writer, file, deadline).await
        });
        match tokio::time::timeout_at(deadline, keeping).await {
            Ok(kept) => kept.map_err(Error::internal)?,
            Err(_) => Err(Error::timeout()),
        }
    }

    /// Adds the written content as a file, and answers after its room has the event. If it ends early, the relay finds
    /// the row, and the sweep finds an object without a row.
    async fn keep(&self, writer: Box<dyn Writer>, file: File, deadline: Instant) -> Result<Uploaded> {
        let finished = tokio::time::timeout(OBJECT_STEP_LIMIT, writer.finish()).await;
        finished.unwrap_or_else(|_| Err(Error::timeout()))?;
        // While the content arrived, another installation may have claimed the store; its sweep removes the object.
        self.objects.ensure_still_own().await?;
        let id = file.id;
        let file = match self.store.add(file).await {
            // The row may have been written.
            Err(error) if error.code == Code::Timeout => return Err(error),
            Err(error) => {
                self.cleanup.drop_object(id).await;
                return Err(error);
            }
            Ok(file) => file,
        };
        let duplicate = file.id != id;
        let drop = async {
            if duplicate {
                self.cleanup.drop_object(id).await;
            }
        };
        let (message, ()) = tokio::join!(self.announce(&file, deadline), drop);
        Ok(Uploaded { file, message: message?, duplicate })
    }

    /// Waits for the file's event in the log; `None` when it was uploaded without a room.
    async fn announce(&self, file: &File, deadline: Instant) -> Result<Option<Event>> {
        if file.event.is_none() {
            return Ok(None);
        }
        let relayed = tokio::time::timeout_at(deadline, self.relay.relay(file)).await;
        relayed.unwrap_or_else(|_| Err(Error::timeout())).map(Some)
    }

    /// Returns what the uploader stores, if the upload is certainly no repeat. A repeat receives its first file,
    /// whatever the uploader stores by now; while an upload may be one, only its last part decides.
    async fn usage_if_new(&self, uploader: Uuid, target: &Target) -> Result<Option<Usage>> {
        if self.quota.is_none() {
            return Ok(None);
        }
        let usage = self.store.usage(uploader).await?;
        let may_be_repeat = usage.named > 0
            && match target.clone() {
                // An upload without a room in its first part may still name one, which is part of its identity.
                Target { room, client_message_id: Some(client_message_id) } if room.is_some() => {
                    self.store.first(store::Upload { uploader, room, client_message_id }).await?.is_some()
                }
                _ => true,
            };
        Ok((!may_be_repeat).then_some(usage))
    }

    fn check_size(&self, size: u64) -> Result<()> {
        if size > self.max_size {
            LIMITS.hit("file_size");
            return Err(Error::new(Code::TooLarge, format!("a file must be at most {} bytes", self.max_size)));
        }
        Ok(())
    }

    /// Checks that a user may post in a room. A repeat of an upload that the room's log has gets the first one, as a
    /// repeat of a message does, although the right of the user has ended since.
    async fn admit(
        &self,
        room: Uuid,
        user: &User,
        client_message_id: Option<&str>,
        waits: Duration,
    ) -> Result<Option<Uploaded>> {
        let refusal = match self.may_post(room, user).await {
            Ok(()) => return Ok(None),
            Err(error) if matches!(error.code, Code::NotFound | Code::Forbidden) => error,
            Err(error) => return Err(error),
        };
        let Some(client_message_id) = client_message_id else { return Err(refusal) };
        let upload =
            store::Upload { uploader: user.id, room: Some(room), client_message_id: client_message_id.to_owned() };
        match self.store.first(upload).await? {
            Some(file) if file.ready => {
                let message = self.announce(&file, Instant::now() + waits).await?;
                Ok(Some(Uploaded { file, message, duplicate: true }))
            }
            _ => Err(refusal),
        }
    }

    async fn may_post(&self, room: Uuid, user: &User) -> Result<()> {
        let access = self.rights.of(room, Some(user.id)).await?;
        match (access.read, access.post) {
            (_, true) => Ok(()),
            (true, false) => Err(Error::new(Code::Forbidden, "may not post in this room")),
            (false, false) => Err(Error::not_found("room")),
        }
    }
}
