//! The connected sockets by the sign-in of their token and by their user, so that a revocation disconnects them, and
//! their number at each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use confab_common::tables::shrink;
use confab_identity::tokens::Identity;
use confab_socketio::net::ClientAddress;
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
    addresses: HashMap<ClientAddress, usize>,
}

/// The maximum number of sockets; 0 means no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct MaxSockets {
    pub per_user: usize,
    pub per_address: usize,
}

/// Sockets by an id.
#[derive(Default)]
struct Sockets(HashMap<Uuid, Vec<Arc<Socket>>>);

/// The reason to reject a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSignedIn {
    /// The user has too many sockets.
    TooManyOfUser,
    /// The address has too many sockets.
    TooManyOfAddress,
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

impl Table {
    /// Counts one socket less at an address.
    fn leave(&mut self, address: ClientAddress) {
        let Entry::Occupied(mut count) = self.addresses.entry(address) else { return };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
            shrink(&mut self.addresses);
        }
    }
}

impl SignIns {
    /// Registers a socket (at most `max`), then checks whether its token has been revoked. In this order, either this
    /// check or the task that disconnects revoked sockets notices a concurrent revocation.
    ///
    /// # Errors
    /// [`NotSignedIn::Revoked`]: the socket is registered. Otherwise, it is not.
    pub fn add(
        &self,
        socket: &Arc<Socket>,
        identity: &Identity,
        max: MaxSockets,
        is_revoked: impl FnOnce() -> bool,
    ) -> Result<(), NotSignedIn> {
        {
            let mut table = self.table.lock();
            let reaches = |count: usize, max: usize| max != 0 && count >= max;
            if reaches(table.users.of(identity.user_id).len(), max.per_user) {
                return Err(NotSignedIn::TooManyOfUser);
            }
            let at_address = table.addresses.get(&socket.client.address).copied().unwrap_or_default();
            if reaches(at_address, max.per_address) {
                return Err(NotSignedIn::TooManyOfAddress);
            }
            table.addresses.insert(socket.client.address, at_address + 1);
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
            if table.users.remove(identity.user_id, socket).is_some() {
                table.leave(socket.client.address);
            }
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
        let max = MaxSockets { per_user: 1, per_address: 0 };
        assert_eq!(sign_ins.add(&socket, &identity, max, is_revoked), Err(NotSignedIn::Revoked));
        let too_many = sign_ins.add(&other, &identity, max, || panic!("not checked"));
        assert_eq!(too_many, Err(NotSignedIn::TooManyOfUser));
        sign_ins.remove(&other);
        assert_eq!(found(), (1, 1), "a socket without an identity");
        sign_ins.remove(&socket);
        sign_ins.remove(&socket);
        assert_eq!(found(), (0, 0));
        assert_eq!(sign_ins.add(&other, &identity, max, || false), Ok(()));
    }

    #[tokio::test]
    async fn sockets_are_counted_by_address() {
        let world = World::new(bus()).await;
        let sign_ins = &world.chat.sign_ins;
        let max = MaxSockets { per_user: 0, per_address: 2 };
        let add = |socket: &Arc<Socket>, user: u128| {
            let user_id = Uuid::from_u128(user);
            let identity = Identity { user_id, session_id: user_id, ..identity() };
            sign_ins.add(socket, &identity, max, || {
                socket.client.identify(identity.clone());
                false
            })
        };
        let here = [(); 3].map(|()| world.client_at(1).socket);
        let there = world.client_at(2).socket;
        assert_eq!([add(&here[0], 8), add(&here[1], 9)], [Ok(()); 2]);
        // The users differ, the address does not.
        assert_eq!(add(&here[2], 10), Err(NotSignedIn::TooManyOfAddress));
        assert!(sign_ins.of_user(Uuid::from_u128(10)).is_empty());
        assert_eq!(add(&there, 10), Ok(()));
        sign_ins.remove(&here[0]);
        sign_ins.remove(&here[0]);
        assert_eq!(add(&here[2], 10), Ok(()), "a removed socket frees one place, once");
        for socket in here.iter().chain([&there]) {
            sign_ins.remove(socket);
        }
        assert!(sign_ins.table.lock().addresses.is_empty());
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
            sign_ins.add(socket, &identity, MaxSockets::default(), identify).unwrap();
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
