//! Users' permissions to post: the room service's answers, cached briefly, and for longer while that service is
//! unreachable.

use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::room::v1::CheckAccessRequest;
use confab_proto::room::v1::room_service_client::RoomServiceClient;
use moka::future::Cache;
use uuid::Uuid;

/// How long an answer counts as current; with the duration of the call, less than one second.
const FRESH: Duration = Duration::from_millis(900);
/// How long the last answer is used while no room replica answers.
const STALE_LIMIT: Duration = Duration::from_secs(600);
/// Maximum cached answers.
const CAPACITY: u64 = 100_000;
/// The call when no answer is cached.
const PATIENT: Call = Call::within(Duration::from_millis(1500)).attempt(Duration::from_millis(700)).reading();
/// The call that refreshes a cached answer.
const HASTY: Call = Call::within(Duration::from_millis(400)).attempt(Duration::from_millis(200)).reading();

/// A user's permission in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Post,
    /// Knows the room, but may not post.
    Look,
    /// The room is hidden from the user.
    Nothing,
}

type Key = (Uuid, Uuid);

/// A cache of permissions.
pub struct Rights {
    room: RoomServiceClient<Transport>,
    fresh: Cache<Key, Right>,
    known: Cache<Key, Right>,
}

impl Rights {
    pub fn new(room: Transport) -> Self {
        Self {
            room: RoomServiceClient::new(room),
            fresh: Cache::builder().max_capacity(CAPACITY).time_to_live(FRESH).build(),
            known: Cache::builder().max_capacity(CAPACITY).time_to_live(STALE_LIMIT).build(),
        }
    }

    /// Returns a user's permission in a room. Concurrent callers with the same key share one call.
    ///
    /// # Errors
    /// When no room replica answers and no answer from the last ten minutes is cached.
    pub async fn of(&self, room: Uuid, user: Uuid) -> Result<Right> {
        let key = (room, user);
        if let Some(right) = self.fresh.get(&key).await {
            return Ok(right);
        }
        self.fresh.try_get_with(key, self.fetch(key)).await.map_err(|error| Error::clone(&error))
    }

    async fn fetch(&self, key: Key) -> Result<Right> {
        let known = self.known.get(&key).await;
        let question = CheckAccessRequest { room_id: key.0.to_string(), user_id: key.1.to_string(), moderator: false };
        let call = if known.is_some() { HASTY } else { PATIENT };
        let right = match self.room.clone().check_access(request(question, call)).await.map_err(Error::from) {
            Ok(access) if access.get_ref().may_post => Right::Post,
            Ok(_) => Right::Look,
            Err(error) => match (error.code, known) {
                (Code::NotFound, _) => Right::Nothing,
                // Not written back: using an answer does not renew it.
                (Code::Unavailable | Code::Timeout, Some(known)) => return Ok(known),
                // The call only reads, so the outcome is known: nothing was done.
                (Code::Timeout, None) => return Err(Error::unavailable("the room service")),
                _ => return Err(error),
            },
        };
        self.known.insert(key, right).await;
        Ok(right)
    }
}
