//! The program that makes a call.

use super::role::{Role, Roles};

/// The caller of a call: the roles that the certificate of its connection proves, or its role in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    roles: Roles,
}

impl Peer {
    /// A caller whose roles are not verified, because calls are not authenticated. It may make every call.
    pub fn any() -> Self {
        Self { roles: Roles::ALL }
    }

    pub fn with(roles: impl Into<Roles>) -> Self {
        Self { roles: roles.into() }
    }

    /// Returns whether the caller has a role.
    pub fn is(self, role: Role) -> bool {
        self.roles.contains(role)
    }

    /// Returns whether the caller has no role, although its certificate is from a trusted authority.
    pub fn is_stranger(self) -> bool {
        self.roles.is_empty()
    }
}

/// Returns the caller of a request that a transport delivered. Any other request has a caller without a role.
pub fn caller<T>(request: &tonic::Request<T>) -> Peer {
    request.extensions().get().copied().unwrap_or_default()
}
