//! The identity of a socket, and the sign-in of its present token, which the event `auth` replaces.

use std::sync::OnceLock;

use confab_identity::credential;
use confab_identity::sign_in::SignIn;
use confab_identity::tokens::Identity;
use parking_lot::Mutex;

use crate::rooms::history::User;

/// The identity of a socket and the sign-in of its present token.
#[derive(Default)]
pub struct Credential {
    /// Of the token in CONNECT.
    identity: OnceLock<Identity>,
    /// Boxed, because most sockets never present a second token.
    // Locked for a copy or a change, never across an await.
    renewed: Mutex<Option<Box<Renewed>>>,
}

struct Renewed {
    sign_in: SignIn,
    credential: credential::Credential,
    /// Whether a task watches the expiry, because the server's timer is set to a later time.
    is_watched: bool,
}

impl Credential {
    /// The identity, once the token in CONNECT has been verified.
    pub fn get(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// Sets the identity. Later calls have no effect.
    pub fn set(&self, identity: Identity) {
        let _ = self.identity.set(identity);
    }

    /// The sign-in of the present token.
    pub fn sign_in(&self) -> Option<SignIn> {
        let renewed = self.renewed.lock().as_ref().map(|renewed| renewed.sign_in);
        renewed.or_else(|| self.get().map(Identity::sign_in))
    }

    /// The present token, for calls on behalf of the user.
    pub fn present(&self) -> credential::Credential {
        let renewed = self.renewed.lock().as_ref().map(|renewed| renewed.credential.clone());
        renewed.or_else(|| self.get().map(|identity| identity.credential.clone())).unwrap_or_default()
    }

    /// The user as a reader of history, with the present token.
    pub fn reader(&self) -> Option<User> {
        self.get().map(|identity| User { id: identity.user_id, credential: self.present() })
    }

    /// Replaces the token by another one of the same user. Returns whether the caller must start a task that watches
    /// the expiry: the new token expires before the former one, and no task does so yet.
    pub fn renew(&self, shown: &Identity) -> bool {
        let sign_in = shown.sign_in();
        let former = self.sign_in().map_or(i64::MAX, |former| former.expires_at);
        let mut renewed = self.renewed.lock();
        let was_watched = renewed.as_ref().is_some_and(|renewed| renewed.is_watched);
        let needs_task = !was_watched && sign_in.expires_at < former;
        let credential = shown.credential.clone();
        *renewed = Some(Box::new(Renewed { sign_in, credential, is_watched: was_watched || needs_task }));
        needs_task
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;
    use uuid::Uuid;

    #[test]
    fn only_the_first_earlier_expiry_needs_a_task() {
        let credential = Credential::default();
        assert_eq!(credential.sign_in(), None);
        credential.set(identity());
        assert_eq!(credential.sign_in(), Some(identity().sign_in()));
        let until = |expires_at| Identity { session_id: Uuid::from_u128(3), issued_at: 1, expires_at, ..identity() };
        for (expires_at, needs_task) in [(i64::MAX, false), (200, true), (300, false), (100, false)] {
            assert_eq!(credential.renew(&until(expires_at)), needs_task, "{expires_at}");
            assert_eq!(credential.sign_in(), Some(until(expires_at).sign_in()));
        }
        assert_eq!(credential.get().map(|identity| identity.session_id), Some(identity().session_id));
    }

    #[test]
    fn an_idle_socket_pays_for_a_pointer_and_a_lock() {
        assert!(size_of::<Credential>() <= size_of::<OnceLock<Identity>>() + 16);
    }
}
