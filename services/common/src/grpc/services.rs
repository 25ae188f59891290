//! The services by name, so that no call takes one for another.

use super::role::Role;
use super::transport::{Transport, called_by, late};

/// The transports to the services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub auth: Transport,
    pub room: Transport,
    pub message: Transport,
    pub file: Transport,
}

impl Services {
    /// No services: every call fails with `unavailable`. A program sets the transports to the services that it calls.
    pub fn none() -> Self {
        let [auth, room, message, file] = [(); 4].map(|()| late().0);
        Self { auth, room, message, file }
    }

    /// Returns the transports for a caller with this role. Each service does so at its start, so that a service in the
    /// same process recognises its caller.
    pub fn called_by(self, role: Role) -> Self {
        let Self { auth, room, message, file } = self;
        let [auth, room, message, file] = [auth, room, message, file].map(|transport| called_by(transport, role));
        Self { auth, room, message, file }
    }
}
