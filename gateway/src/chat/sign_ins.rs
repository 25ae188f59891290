//! The connected sockets by the sign-in of their token and by their user, so that a revocation disconnects them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use confab_common::tables::shrink;
use confab_identity::tokens::Identity;
use parking_lot::Mutex;
use uuid::Uuid;

use super::client::Socket;

/// All sockets with an identity.
#[derive(Default)]
pub struct SignIns {
    // Held for a look-up or a change, never across an await.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By the sign-in of the present token.
    sign_ins: Sockets,
    users: Sockets,
}

/// Sockets by an id.
#[derive(Default)]
struct Sockets(HashMap<Uuid, Vec<Arc<Socket>>>);

/// The reason to reject a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSignedIn {
    /// The user has too many sockets.
    TooMany,
    /// The token has been revoked.
    Revoked,
}

impl Sockets {
    fn of(&self, id: Uuid) -> &[Arc<Socket>] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, id: Uuid, socket: Arc<Socket>) {
        let sockets = self.0.entry(id).or_default();
        if sockets.is_empty() {
            // Most sign-ins have one socket.
            sockets.reserve_exact(1);
        }
        sockets.push(socket);
    }

    /// Removes a socket, and returns it if it was there.
    fn remove(&mut self, id: Uuid, socket: &Socket) -> Option<Arc<Socket>> {
        let Entry::Occupied(mut sockets) = self.0.entry(id) else { return None };
        let index = sockets.get().iter().position(|other| std::ptr::eq(Arc::as_ptr(other), socket))?;
        let removed = sockets.get_mut().swap_remove(index);
        if sockets.get().is_empty() {
            sockets.remove();
            shrink(&mut self.0);
        }
        Some(removed)
    }
}

impl SignIns {
    /// Registers a socket (at most `max` per user; 0: no limit), then checks whether its token has been revoked. In
    /// this order, either this check or the task that disconnects revoked sockets notices a concurrent revocation.
    ///
    /// # Errors
    /// [`NotSignedIn::TooMany`]: the socket is not registered. [`NotSignedIn::Revoked`]: the socket is registered.
    pub fn add(
        &self,
        socket: &Arc<Socket>,
        identity: &Identity,
        max: usize,
        is_revoked: impl FnOnce() -> bool,
    ) -> Result<(), NotSignedIn> {
        {
            let mut table = self.table.lock();
            if max != 0 && table.users.of(identity.user_id).len() >= max {
                return Err(NotSignedIn::TooMany);
            }
            table.users.add(identity.user_id, socket.clone());
            table.sign_ins.add(identity.session_id, socket.clone());
        }
        if is_revoked() { Err(NotSignedIn::Revoked) } else { Ok(()) }
    }

    /// Moves a socket to the sign-in of another token of its user, unless the socket has been removed meanwhile. The
    /// caller checks afterwards whether the token has been revoked. Returns whether the caller must watch the expiry.
    pub fn renew(&self, socket: &Arc<Socket>, shown: &Identity) -> bool {
        let mut table = self.table.lock();
        let credential = &socket.client.credential;
        let former = credential.sign_in().and_then(|former| table.sign_ins.remove(former.session_id, socket));
        let Some(socket) = former else { return false };
        table.sign_ins.add(shown.session_id, socket);
        credential.renew(shown)
    }

    /// Removes a socket. Idempotent.
    pub fn remove(&self, socket: &Socket) {
        let mut table = self.table.lock();
        let credential = &socket.client.credential;
        if let (Some(identity), Some(sign_in)) = (credential.get(), credential.sign_in()) {
            table.sign_ins.remove(sign_in.session_id, socket);
            table.users.remove(identity.user_id, socket);
        }
    }

    /// The sockets whose present token belongs to a session.
    pub fn of(&self, session_id: Uuid) -> Vec<Arc<Socket>> {
        self.table.lock().sign_ins.of(session_id).to_vec()
    }

    pub fn of_user(&self, user_id: Uuid) -> Vec<Arc<Socket>> {
        self.table.lock().users.of(user_id).to_vec()
    }

    pub fn all(&self) -> Vec<Arc<Socket>> {
        self.table.lock().sign_ins.0.values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::testing::World;
    use crate::testing::{bus, identity};

    #[tokio::test]
    async fn a_socket_is_registered_before_its_revocation_is_checked() {
        let (world, identity) = (World::new(bus()).await, identity());
        let sign_ins = &world.chat.sign_ins;
        let [socket, other] = [(); 2].map(|()| world.client().socket);
        let found = || (sign_ins.of(identity.session_id).len(), sign_ins.of_user(identity.user_id).len());
        let is_revoked = || {
            assert_eq!(found(), (1, 1));
            socket.client.identify(identity.clone());
            true
        };
        assert_eq!(sign_ins.add(&socket, &identity, 1, is_revoked), Err(NotSignedIn::Revoked));
        assert_eq!(sign_ins.add(&other, &identity, 1, || panic!("not checked")), Err(NotSignedIn::TooMany));
        sign_ins.remove(&other);
        assert_eq!(found(), (1, 1), "a socket without an identity");
        sign_ins.remove(&socket);
        sign_ins.remove(&socket);
        assert_eq!(found(), (0, 0));
        assert_eq!(sign_ins.add(&other, &identity, 1, || false), Ok(()));
    }

    #[tokio::test]
    async fn a_renewed_socket_belongs_to_its_new_sign_in_only() {
        let (world, identity) = (World::new(bus()).await, identity());
        let sign_ins = &world.chat.sign_ins;
        let sockets = [(); 3].map(|()| world.client().socket);
        for socket in &sockets {
            let identify = || {
                socket.client.identify(identity.clone());
                false
            };
            sign_ins.add(socket, &identity, 3, identify).unwrap();
        }
        let next = Identity { session_id: Uuid::from_u128(10), ..identity.clone() };
        assert!(!sign_ins.renew(&sockets[1], &next));
        let found = || [identity.session_id, next.session_id].map(|id| sign_ins.of(id).len());
        assert_eq!((found(), sign_ins.of_user(identity.user_id).len(), sign_ins.all().len()), ([2, 1], 3, 3));
        sign_ins.remove(&sockets[1]);
        assert!(!sign_ins.renew(&sockets[1], &identity), "it has been removed");
        assert_eq!((found(), sign_ins.of_user(identity.user_id).len()), ([2, 0], 2));
        assert!(sign_ins.renew(&sockets[0], &Identity { expires_at: 5, ..next.clone() }), "it expires earlier");
        assert_eq!(found(), [1, 1]);
    }
}
