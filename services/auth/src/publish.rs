//! Announces revocations to the gateways. A gateway that misses an announcement reads the revocation with
//! `ListRevocations`.

use confab_common::bus::Bus;
use confab_proto::auth::v1;
use confab_proto::channel;
use prost::Message;

use crate::store::Revocation;

pub struct Publisher(Bus);

impl Publisher {
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
        Self {
            number: revocation.number,
            session_id: revocation.session_id.to_string(),
            expires_at_ms: revocation.expires_at_ms,
        }
    }
}
