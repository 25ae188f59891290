//! Finishes deletions: removes the objects of deleted files, marks the files as deleted in the log, and deletes the
//! files of closed rooms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{Call, MAX_MESSAGE, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{ForgetFilesRequest, GetRoomHeadsRequest};
use futures::future::TryFutureExt;
use futures::stream::{self, StreamExt};
use uuid::Uuid;

use crate::owned::Owned;
use crate::store::{Forget, Store};

const CALL: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));
/// How often the queues are processed.
const PROCESS_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between attempts while an operation fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Rows taken from a queue at once.
const BATCH: u32 = 500;
/// Objects removed at once.
const REMOVALS: usize = 8;
/// How often the service asks the log which rooms are closed.
const ROOMS_EVERY: Duration = Duration::from_secs(5);
/// Rooms per request.
const ROOMS: u32 = 1000;

pub struct Cleanup {
    store: Arc<dyn Store>,
    objects: Arc<Owned>,
    message: MessageServiceClient<Transport>,
}

impl Cleanup {
    /// Cleans up a store and its objects; `message` is the transport to the log.
    pub fn new(store: Arc<dyn Store>, objects: Arc<Owned>, message: Transport) -> Self {
        let message = MessageServiceClient::new(message)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { store, objects, message }
    }

    /// Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            keep_trying("cannot remove objects", || self.remove_objects()),
            keep_trying("cannot report deletions to the log", || self.report_deletions()),
            self.empty_rooms(),
        );
    }

    /// Removes an object that belongs to no file. If the removal fails, the sweep repeats it.
    pub async fn drop_object(&self, id: Uuid) {
        if let Err(error) = self.objects.delete(id).await {
            tracing::warn!(object = %id, %error, "cannot remove an object; the sweep will retry");
        }
    }

    /// Reports deleted files to the log.
    pub async fn forget(&self, files: &[Forget]) -> Result<()> {
        let mut rooms = BTreeMap::<Uuid, Vec<Uuid>>::new();
        files.iter().for_each(|forget| rooms.entry(forget.room).or_default().push(forget.file));
        let mut outcome = Ok(());
        for (room, ids) in rooms {
            let question =
                ForgetFilesRequest { room_id: room.to_string(), ids: ids.iter().map(Uuid::to_string).collect() };
            match self.message.clone().forget_files(request(question, CALL)).await.map_err(Error::from) {
                Ok(_) => self.store.forgotten(ids).await?,
                // The room does not exist, so no event can show the file.
                Err(error) if error.code == Code::NotFound => self.store.forgotten(ids).await?,
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    async fn report_deletions(&self) -> Result<()> {
        let (mut after, mut outcome) = (Uuid::nil(), Ok(()));
        loop {
            let files = self.store.forgets(after, BATCH).await?;
            let Some(last) = files.last() else { return outcome };
            after = last.file;
            outcome = outcome.and(self.forget(&files).await);
        }
    }

    async fn remove_objects(&self) -> Result<()> {
        if self.store.unwanted(Uuid::nil(), 1).await?.is_empty() || !self.objects.are_own().await? {
            return Ok(());
        }
        let (mut after, mut outcome) = (Uuid::nil(), Ok(()));
        loop {
            let ids = self.store.unwanted(after, BATCH).await?;
            let Some(last) = ids.last() else { return outcome };
            after = *last;
            let removals = stream::iter(ids).map(|id| self.objects.delete(id).map_ok(move |()| id));
            let (mut removed, mut failed) = (Vec::new(), Ok(()));
            let mut removals = removals.buffer_unordered(REMOVALS);
            while let Some(removal) = removals.next().await {
                match removal {
                    Ok(id) => removed.push(id),
                    Err(error) => failed = Err(error),
                }
            }
            self.store.removed(removed).await?;
            outcome = outcome.and(failed);
        }
    }

    /// Checks one batch of rooms after another, and starts again after the last.
    async fn empty_rooms(&self) {
        let mut after = Uuid::nil();
        loop {
            after = self.empty_closed(after).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot query which rooms are closed");
                after
            });
            tokio::time::sleep(ROOMS_EVERY).await;
        }
    }

    /// Deletes the files of closed rooms in the next batch above `after`. Returns the id to continue from.
    async fn empty_closed(&self, after: Uuid) -> Result<Uuid> {
        let rooms = self.store.rooms(after, ROOMS).await?;
        if rooms.is_empty() {
            return Ok(Uuid::nil());
        }
        let question = GetRoomHeadsRequest { room_ids: rooms.iter().map(Uuid::to_string).collect(), until_ms: None };
        let heads = self.message.clone().get_room_heads(request(question, CALL.reading())).await?.into_inner().heads;
        for room in heads.iter().filter(|head| head.closed).filter_map(|head| Uuid::try_parse(&head.room_id).ok()) {
            while self.store.empty(room, BATCH).await? > 0 {}
            tracing::info!(%room, "removing the files of a closed room");
        }
        Ok(rooms.last().filter(|_| rooms.len() == ROOMS as usize).copied().unwrap_or_default())
    }
}

/// Repeats the work, less often while it fails.
async fn keep_trying<F: Future<Output = Result<()>>>(what: &str, work: impl Fn() -> F) {
    let mut pause = PROCESS_EVERY;
    loop {
        pause = match work().await {
            Ok(()) => PROCESS_EVERY,
            Err(error) => {
                tracing::warn!(%error, "{what}; retrying");
                (pause * 2).min(LONGEST_PAUSE)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
