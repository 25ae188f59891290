//! The connected sockets by the sign-in of their token, so that a logout disconnects them, and the number of sockets of
//! each user.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::tables::shrink;
use parking_lot::Mutex;
use uuid::Uuid;

use super::client::Socket;
use crate::tokens::Identity;

/// All sign-ins with a socket.
#[derive(Default)]
pub struct SignIns {
    // Held for a look-up or a change, never across an await.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sockets: HashMap<Uuid, Vec<Arc<Socket>>>,
    /// The number of sockets of each user.
    counts: HashMap<Uuid, usize>,
}

/// The reason to reject a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSignedIn {
    /// The user has too many sockets.
    TooMany,
    /// The token has been revoked.
    Revoked,
}

impl SignIns {
    /// Registers a socket (at most `max` per user; 0: no limit), then checks whether its token has been revoked. In
    /// this order, either this check or the task that disconnects the sign-in's sockets notices a concurrent logout.
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
            let count = table.counts.entry(identity.user_id).or_default();
            if max != 0 && *count >= max {
                return Err(NotSignedIn::TooMany);
            }
            *count += 1;
            let sockets = table.sockets.entry(identity.session_id).or_default();
            if sockets.is_empty() {
                // Most sign-ins have one socket.
                sockets.reserve_exact(1);
            }
            sockets.push(socket.clone());
        }
        if is_revoked() { Err(NotSignedIn::Revoked) } else { Ok(()) }
    }

    /// Removes a socket. Idempotent.
    pub fn remove(&self, socket: &Socket, identity: &Identity) {
        let mut table = self.table.lock();
        let Some(sockets) = table.sockets.get_mut(&identity.session_id) else { return };
        let Some(index) = sockets.iter().position(|other| other.id() == socket.id()) else { return };
        sockets.swap_remove(index);
        if sockets.is_empty() {
            table.sockets.remove(&identity.session_id);
            shrink(&mut table.sockets);
        }
        if let Some(count) = table.counts.get_mut(&identity.user_id) {
            *count -= 1;
            if *count == 0 {
                table.counts.remove(&identity.user_id);
                shrink(&mut table.counts);
            }
        }
    }

    pub fn of(&self, session_id: Uuid) -> Vec<Arc<Socket>> {
        self.table.lock().sockets.get(&session_id).cloned().unwrap_or_default()
    }

    pub fn all(&self) -> Vec<Arc<Socket>> {
        self.table.lock().sockets.values().flatten().cloned().collect()
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
        let found = || sign_ins.of(identity.session_id).len();
        let is_revoked = || {
            assert_eq!(found(), 1);
            true
        };
        assert_eq!(sign_ins.add(&socket, &identity, 1, is_revoked), Err(NotSignedIn::Revoked));
        assert_eq!(sign_ins.add(&other, &identity, 1, || panic!("not checked")), Err(NotSignedIn::TooMany));
        sign_ins.remove(&socket, &identity);
        sign_ins.remove(&socket, &identity);
        assert_eq!(found(), 0);
        assert_eq!(sign_ins.add(&other, &identity, 1, || false), Ok(()));
    }
}
