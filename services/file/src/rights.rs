//! Users' permissions in rooms: the room service's answers. Those of public rooms are cached for less than one second;
//! in a private room a removal ends the permissions at once.

use std::collections::BTreeSet;
use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::room::v1::room_service_client::RoomServiceClient;
use confab_proto::room::v1::{CheckAccessRequest, CheckRoomsRequest};
use futures::stream::{self, StreamExt, TryStreamExt};
use moka::future::Cache;
use uuid::Uuid;

/// How long an answer counts as current; with the duration of the call, less than one second.
const FRESH: Duration = Duration::from_millis(900);
/// Maximum cached answers.
const CAPACITY: u64 = 100_000;
/// Concurrent calls to a room service that checks one room at a time.
const CONCURRENT_CHECKS: usize = 16;
const CALL: Call = Call::within(Duration::from_millis(1500)).attempt(Duration::from_millis(700)).reading();

/// A reader's permissions in a room; all `false` if the room is hidden from the reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub post: bool,
    pub manage: bool,
    pub private: bool,
}

/// The room and the user; `None` is an anonymous reader.
type Key = (Uuid, Option<Uuid>);

/// A cache of permissions; clones share it.
#[derive(Clone)]
pub struct Rights {
    room: RoomServiceClient<Transport>,
    fresh: Cache<Key, Access>,
}

impl Rights {
    pub fn new(room: Transport) -> Self {
        Self {
            room: RoomServiceClient::new(room),
            fresh: Cache::builder().max_capacity(CAPACITY).time_to_live(FRESH).build(),
        }
    }

    /// Returns the permissions of a user, or with `None` of an anonymous reader, in a room.
    ///
    /// # Errors
    /// When no room replica answers.
    pub async fn of(&self, room: Uuid, user: Option<Uuid>) -> Result<Access> {
        let key = (room, user);
        if let Some(access) = self.fresh.get(&key).await {
            return Ok(access);
        }
        let access = self.now(room, user).await?;
        if access.read && !access.private {
            self.fresh.insert(key, access).await;
        }
        Ok(access)
    }

    /// Like [`of`](Self::of), without the cache.
    ///
    /// # Errors
    /// When no room replica answers.
    pub async fn now(&self, room: Uuid, user: Option<Uuid>) -> Result<Access> {
        let (room_id, user_id) = (room.to_string(), user.map(|id| id.to_string()).unwrap_or_default());
        self.ask(CheckAccessRequest { room_id, user_id, moderator: false }).await
    }

    /// Returns those of these rooms that a user may read now, from one call of the room service.
    ///
    /// # Errors
    /// When no room replica answers.
    pub async fn readable(&self, rooms: BTreeSet<Uuid>, user: Uuid) -> Result<BTreeSet<Uuid>> {
        if rooms.is_empty() {
            return Ok(rooms);
        }
        let question =
            CheckRoomsRequest { room_ids: rooms.iter().map(Uuid::to_string).collect(), user_id: user.to_string() };
        match self.room.clone().check_rooms(request(question, CALL)).await {
            Ok(answer) => Ok(answer.get_ref().room_ids.iter().filter_map(|id| id.parse().ok()).collect()),
            // A room service of the previous release, during an upgrade.
            Err(status) if status.code() == tonic::Code::Unimplemented => self.readable_one_by_one(rooms, user).await,
            Err(status) => Err(unanswered(status.into())),
        }
    }

    async fn readable_one_by_one(&self, rooms: BTreeSet<Uuid>, user: Uuid) -> Result<BTreeSet<Uuid>> {
        let check = async |room: Uuid| Ok::<_, Error>(self.of(room, Some(user)).await?.read.then_some(room));
        let checked = stream::iter(rooms).map(check).buffer_unordered(CONCURRENT_CHECKS);
        Ok(checked.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
    }

    /// Returns the permissions of a server key without a user in a room.
    ///
    /// # Errors
    /// When no room replica answers.
    pub async fn of_moderator(&self, room: Uuid) -> Result<Access> {
        let (room_id, user_id) = (room.to_string(), String::new());
        self.ask(CheckAccessRequest { room_id, user_id, moderator: true }).await
    }

    async fn ask(&self, question: CheckAccessRequest) -> Result<Access> {
        match self.room.clone().check_access(request(question, CALL)).await.map_err(Error::from) {
            Ok(access) => {
                let access = access.get_ref();
                Ok(Access {
                    read: access.may_read,
                    post: access.may_post,
                    manage: access.may_manage,
                    private: access.private,
                })
            }
            Err(error) if error.code == Code::NotFound => Ok(Access::default()),
            Err(error) => Err(unanswered(error)),
        }
    }
}

/// The calls only read, so the outcome of a call without an answer is known: nothing was done.
fn unanswered(error: Error) -> Error {
    if error.code == Code::Timeout { Error::unavailable("the room service") } else { error }
}
