//! Announces revocations to the gateways at once; a gateway that misses one gets it from `ListRevocations`.

use confab_common::bus::Bus;
use confab_proto::auth::v1;
use confab_proto::channel;
use prost::Message;

use crate::store::Revocation;

/// Publishes revocations on the bus.
pub struct Publisher(Bus);

impl Publisher {
    /// Publishes on this bus.
    pub fn new(bus: Bus) -> Self {
        Self(bus)
    }

    /// Announces a committed revocation.
    pub fn revoked(&self, revocation: Revocation) {
        self.0.publish(channel::REVOCATIONS, v1::Revocation::from(revocation).encode_to_vec());
    }
}

impl From<Revocation> for v1::Revocation {
    fn from(revocation: Revocation) -> Self {
        Self { number: revocation.number, session_id: revocation.session_id.to_string(), expires_at_ms: revocation.expires_at_ms }
    }
}
