//! The services by name, so that no call takes one for another.

use super::transport::{Transport, late};

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
}
