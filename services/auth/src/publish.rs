//! Announces revocations to the gateways. A gateway that misses an announcement reads the revocation with
//! `ListRevocations`.

use confab_common::bus::Bus;
use confab_proto::auth::v1;
use confab_proto::channel;
use prost::Message;

use crate::store::{Revocation, Scope};

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
        let Revocation { number, scope, expires_at_ms } = revocation;
        let empty = Self { number, expires_at_ms, ..Self::default() };
        let (kind, user_id) = match scope {
            Scope::Session(id) => return Self { session_id: id.to_string(), ..empty },
            Scope::Before { user_id, .. } => (v1::RevocationKind::NotBefore, user_id),
            Scope::Blocked { user_id, .. } => (v1::RevocationKind::Blocked, user_id),
            Scope::Unblocked { user_id } => (v1::RevocationKind::Unblocked, user_id),
        };
        let (not_before, except) = scope.before_columns();
        let deleted = matches!(scope, Scope::Blocked { deleted: true, .. });
        Self {
            kind: kind.into(),
            user_id: user_id.to_string(),
            not_before: not_before.unwrap_or_default(),
            except_session_id: except.map(|id| id.to_string()).unwrap_or_default(),
            deleted,
            ..empty
        }
    }
}
