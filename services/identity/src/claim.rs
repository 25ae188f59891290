//! Compares the user or server key that a request names with the one that the credential of the call proves.

use std::sync::Arc;

use confab_common::grpc::{Peer, Role, caller};
use confab_common::{Error, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::server_key::{SYSTEM, Scope};
use tonic::Request;
use uuid::Uuid;

use crate::callers::{Callers, Verified, foreign, missing};
use crate::metrics::CREDENTIALS;

/// The user or the server key that a request names as the one that makes it.
pub enum Named<'a> {
    /// None: an anonymous caller, or a call that needs no user.
    None,
    /// A user, whose name is replaced by the verified one.
    User(&'a mut UserRef),
    UserId(&'a str),
    /// A user and the sign-in of the call.
    SignIn {
        user_id: &'a str,
        session_id: &'a str,
    },
    /// A server key that acts without a user, with the name that it has in events.
    Moderator(&'a mut UserRef),
    /// A server key.
    Key(&'a str),
    /// Any server key with one of the scopes.
    AnyKey,
}

/// A request that can name a user or a server key.
pub trait ForCaller {
    /// The scopes of which a server key needs one.
    const SCOPES: &'static [Scope];

    fn named(&mut self) -> Named<'_>;
}

/// What is known about the caller of a call.
#[derive(Clone, Default)]
pub struct Claim {
    callers: Option<Callers>,
    verified: Option<Arc<Verified>>,
    peer: Peer,
}

/// Returns the message of a request after [`Claim::check`].
///
/// # Errors
/// As [`Claim::check`].
pub fn verified<T: ForCaller>(request: Request<T>) -> Result<T> {
    let claim = Claim::of(&request);
    let mut message = request.into_inner();
    claim.check(&mut message)?;
    Ok(message)
}

impl Claim {
    pub(crate) fn new(callers: Callers, verified: Option<Arc<Verified>>) -> Self {
        Self { callers: Some(callers), verified, peer: Peer::default() }
    }

    /// The claim of a call. A server that is not guarded trusts the calling program.
    pub fn of<T>(request: &Request<T>) -> Self {
        Self { peer: caller(request), ..request.extensions().get().cloned().unwrap_or_default() }
    }

    /// What verifies the credentials within the message of the call; `None` if the server is not guarded.
    pub fn callers(&self) -> Option<&Callers> {
        self.callers.as_ref()
    }

    /// Whether the call needs a credential to name a user. Services that call by themselves need none.
    pub fn is_required(&self) -> bool {
        self.callers.as_ref().is_some_and(Callers::is_required) && self.peer.is(Role::Gateway)
    }

    /// Checks that the user or the server key that a message names is the verified one.
    ///
    /// # Errors
    /// `unauthorized` if the message names one without a credential, although the service requires one; `forbidden` if
    /// the credential belongs to another user or key, or the key lacks the scope.
    pub fn check<T: ForCaller>(&self, message: &mut T) -> Result<()> {
        self.check_named(message.named(), T::SCOPES)
    }

    /// Checks the named user or server key. A server key needs one of these scopes.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_named(&self, named: Named<'_>, scopes: &[Scope]) -> Result<()> {
        let Some(verified) = &self.verified else { return self.check_unverified(&named) };
        let proven = verified.proves(named, scopes);
        if proven { Ok(()) } else { Err(refused()) }
    }

    fn check_unverified(&self, named: &Named<'_>) -> Result<()> {
        if matches!(named, Named::None) || !self.peer.is(Role::Gateway) {
            return Ok(());
        }
        CREDENTIALS.absent.increment(1);
        if self.is_required() { Err(missing()) } else { Ok(()) }
    }
}

fn refused() -> Error {
    CREDENTIALS.refused.increment(1);
    foreign()
}

impl Verified {
    /// Whether the credential proves what a request names.
    pub fn proves(&self, named: Named<'_>, scopes: &[Scope]) -> bool {
        let is = |id: &str, proven: Uuid| id.parse() == Ok(proven);
        match (self, named) {
            (Self::Key { scopes: has, .. }, _) if !scopes.iter().any(|scope| has.contains(*scope)) => false,
            (_, Named::None) | (Self::Key { .. }, Named::AnyKey) => true,
            (Self::Key { id, .. }, Named::Key(key)) => is(key, *id),
            (Self::Key { id, .. }, Named::Moderator(key)) => {
                SYSTEM.clone_into(&mut key.username);
                is(&key.id, *id)
            }
            (_, Named::User(user)) => match self.user().filter(|proven| is_same(&user.id, &proven.id)) {
                Some(proven) => {
                    user.username.clone_from(&proven.username);
                    true
                }
                None => false,
            },
            (_, Named::UserId(id)) => self.user().is_some_and(|proven| is_same(id, &proven.id)),
            (Self::User(identity), Named::SignIn { user_id, session_id }) => {
                is(user_id, identity.user_id) && is(session_id, identity.session_id)
            }
            (Self::Key { .. }, Named::SignIn { .. })
            | (Self::User(_), Named::Key(_) | Named::Moderator(_) | Named::AnyKey) => false,
        }
    }
}

/// Whether two texts are the same id.
fn is_same(id: &str, proven: &str) -> bool {
    id == proven || id.parse::<Uuid>().is_ok_and(|id| proven.parse() == Ok(id))
}

#[cfg(test)]
mod tests;
