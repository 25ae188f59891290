//! Removes the users of deleted accounts from rooms, by calls to the room service.
//!
//! Any number of replicas may do this at once: the calls can be repeated.

use std::sync::Arc;

use confab_common::grpc::{MAX_MESSAGE, Transport, request};
use confab_common::outbox::{self, BATCH, DELIVERY, Swept};
use confab_common::{Code, Result, text};
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1::RemoveUserRequest;
use confab_proto::room::v1::room_service_client::RoomServiceClient;
use uuid::Uuid;

use crate::store::{Leaving, State, Store};

/// Relays removals to the room service.
pub struct Relay {
    store: Arc<dyn Store>,
    room: RoomServiceClient<Transport>,
}

impl Relay {
    pub fn new(store: Arc<dyn Store>, room: Transport) -> Self {
        let room =
            RoomServiceClient::new(room).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { store, room }
    }

    /// Removes users without end, those of earlier processes first.
    pub async fn run(self) {
        outbox::sweep(|| self.sweep()).await;
    }

    /// Tries every user once.
    async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = Uuid::nil();
        loop {
            let page = self.store.leaving(after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(swept) };
            after = last.user_id;
            swept.found += page.len();
            for leaving in &page {
                match self.remove(leaving).await {
                    Ok(()) => swept.relayed += 1,
                    // The next call would fail, too.
                    Err(error) if matches!(error.code, Code::Unavailable | Code::Timeout) => return Err(error),
                    Err(error) => tracing::warn!(user = %leaving.user_id, %error, "cannot remove a user from rooms"),
                }
            }
        }
    }

    async fn remove(&self, leaving: &Leaving) -> Result<()> {
        let user = Some(UserRef { id: leaving.user_id.to_string(), username: leaving.username.clone() });
        let (mut active, mut inactive) = (Vec::new(), Vec::new());
        loop {
            let ask = RemoveUserRequest { user: user.clone(), looks_up_heirs: true, active, inactive };
            let answer = self.room.clone().remove_user(request(ask, DELIVERY)).await?.into_inner();
            if !answer.more {
                return self.store.has_left(leaving.user_id).await;
            }
            (active, inactive) = self.look_up(answer.candidates).await?;
        }
    }

    /// Returns which of the candidates for the ownership of rooms are active, and which are not.
    async fn look_up(&self, candidates: Vec<String>) -> Result<(Vec<String>, Vec<String>)> {
        let (mut active, mut inactive) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let user = self.store.user(text::id("candidates", &candidate)?).await?;
            let is_active = user.is_some_and(|user| user.state == State::Active);
            if is_active { &mut active } else { &mut inactive }.push(candidate);
        }
        Ok((active, inactive))
    }
}
