//! The accounts of users, looked up by id: those on whose behalf server keys act.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{AccountState, GetUserRequest, UserRef};
use uuid::Uuid;

use crate::lookups::Lookups;
use crate::revocations::{Block, Revocations};

/// How long an answer about a user is used. A suspension takes effect earlier, with the list of revocations.
const LIFE: Duration = Duration::from_secs(4);
/// Most users with a cached answer.
const CAPACITY: u64 = 10_000;
const ASK: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500)).reading();

/// Looks up users by their ids; clones share the answers.
#[derive(Clone)]
pub struct ActingUsers {
    auth: AuthServiceClient<Transport>,
    revocations: Revocations,
    answers: Arc<Lookups<Account>>,
}

#[derive(Clone)]
struct Account {
    user: UserRef,
    state: AccountState,
}

impl ActingUsers {
    pub fn new(auth: AuthServiceClient<Transport>, revocations: Revocations) -> Self {
        Self { auth, revocations, answers: Arc::new(Lookups::new(CAPACITY, LIFE)) }
    }

    /// The user with this id, who has the right to act.
    ///
    /// # Errors
    /// `not_found` for an unknown or deleted user; `forbidden` for a suspended one; `unavailable` when auth does not
    /// answer.
    pub async fn find(&self, id: Uuid) -> Result<UserRef> {
        match self.revocations.block_now(id).await {
            Some(Block::Deleted) => return Err(Error::not_found("user")),
            Some(Block::Suspended) => return Err(suspended()),
            None => {}
        }
        match self.answers.find(id, self.ask(id)).await? {
            Some(Account { state: AccountState::Suspended, .. }) => Err(suspended()),
            Some(Account { state: AccountState::Active | AccountState::Unspecified, user }) => Ok(user),
            Some(Account { state: AccountState::Deleted, .. }) | None => Err(Error::not_found("user")),
        }
    }

    /// Looks the user up again, because this program has changed the account.
    pub async fn forget(&self, id: Uuid) {
        self.answers.forget(id).await;
    }

    async fn ask(&self, id: Uuid) -> Result<Option<Account>> {
        let ask = GetUserRequest { id: id.to_string(), ..GetUserRequest::default() };
        match self.auth.clone().get_user(request(ask, ASK)).await.map_err(Error::from) {
            Ok(user) => {
                let user = user.into_inner();
                let state = user.state();
                Ok(Some(Account { user: UserRef { id: user.id, username: user.username }, state }))
            }
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(Error::unavailable("the auth service").because(error)),
        }
    }
}

fn suspended() -> Error {
    Error::new(Code::Forbidden, "the account is suspended")
}
