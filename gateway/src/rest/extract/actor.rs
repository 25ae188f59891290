//! Who makes a request: a user with a token, a server key on behalf of a user, or a server key alone.

use confab_common::{Code, Error, Result};
use confab_identity::credential::Credential;
use confab_identity::tokens::Identity;
use confab_proto::auth::v1::{self as auth, UserRef};
use confab_proto::server_key::{SYSTEM, Scope, Scopes};
use serde_json::Value;
use uuid::Uuid;

use crate::App;
use crate::audit::By;

/// The header with the user on whose behalf a server key acts.
pub(in crate::rest) const CONFAB_USER: &str = "Confab-User";

/// The user or the server key that makes a request. Anonymous requests are rejected with `unauthorized`.
///
/// A server key needs the scope of the route. With the header `Confab-User` it has exactly the rights of that user.
/// Without the header it acts in any room: the handler passes `moderator` to the services, and calls
/// [`Actor::recorded`] before it changes anything.
#[derive(Debug, Clone)]
pub(in crate::rest) enum Actor {
    User(Identity),
    UserOfKey { user: Identity, key: Key },
    Key(Key),
}

/// A server key with the scope of the route.
#[derive(Debug, Clone)]
pub(in crate::rest) struct Key {
    pub id: Uuid,
    pub scopes: Scopes,
    pub request_id: String,
    /// The credential of the key alone, for calls to the services.
    pub credential: Credential,
}

impl Key {
    /// The key in the form that the auth service expects.
    pub fn actor(&self) -> auth::Actor {
        auth::Actor { key_id: self.id.to_string(), request_id: self.request_id.clone() }
    }

    /// The key in the form that the audit expects.
    pub fn by(&self) -> By<'_> {
        By { actor: self.actor(), credential: &self.credential }
    }
}

impl Actor {
    /// The user; `None` for a server key without a user.
    pub fn user(&self) -> Option<&Identity> {
        match self {
            Self::User(user) | Self::UserOfKey { user, .. } => Some(user),
            Self::Key(_) => None,
        }
    }

    /// The user of an act that needs an author.
    ///
    /// # Errors
    /// `invalid_request` for a server key without a user.
    pub fn into_user(self) -> Result<Identity> {
        match self {
            Self::User(user) | Self::UserOfKey { user, .. } => Ok(user),
            Self::Key(_) => Err(needs_user()),
        }
    }

    /// The actor in the form that the services expect: the user, or the key under the name `system`.
    pub fn caller(&self) -> UserRef {
        match self {
            Self::User(user) | Self::UserOfKey { user, .. } => user.user.clone(),
            Self::Key(key) => UserRef { id: key.id.to_string(), username: SYSTEM.into() },
        }
    }

    /// The credential for calls on behalf of the actor.
    pub fn credential(&self) -> &Credential {
        match self {
            Self::User(user) | Self::UserOfKey { user, .. } => &user.credential,
            Self::Key(key) => &key.credential,
        }
    }

    /// The id for limits: that of the user or of the key.
    pub fn id(&self) -> Uuid {
        match self {
            Self::User(user) | Self::UserOfKey { user, .. } => user.user_id,
            Self::Key(key) => key.id,
        }
    }

    /// Whether the actor is a server key without a user, which may act in any room.
    pub fn is_moderator(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    /// Whether the actor may receive messages: a server key needs the scope.
    pub fn may_see_messages(&self) -> bool {
        match self {
            Self::User(_) => true,
            Self::UserOfKey { key, .. } | Self::Key(key) => key.scopes.contains(Scope::Messages),
        }
    }

    /// Records an act that a server key without a user is about to do; `details` is an object, or null for none.
    /// Nothing is recorded for users.
    ///
    /// # Errors
    /// `unavailable` when the act is not recorded.
    pub async fn recorded(&self, app: &App, act: &str, object: Uuid, details: Value) -> Result<()> {
        match self {
            Self::User(_) | Self::UserOfKey { .. } => Ok(()),
            Self::Key(key) => app.audit.record(key.by(), act, object, &details).await,
        }
    }
}

/// Adds the credential of the actor, if there is one, to a call.
pub(in crate::rest) fn by<T>(actor: Option<&Actor>, request: tonic::Request<T>) -> tonic::Request<T> {
    match actor {
        Some(actor) => actor.credential().attach(request),
        None => request,
    }
}

/// The error for a server key without a user where an author is needed.
pub(in crate::rest) fn needs_user() -> Error {
    Error::field(CONFAB_USER, "must name the user on whose behalf the server key acts")
}

pub(in crate::rest) fn unauthorized(detail: &str) -> Error {
    Error::new(Code::Unauthorized, detail)
}
