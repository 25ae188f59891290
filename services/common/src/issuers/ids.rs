//! The ids that are computed from a token. Every program computes the same ids, without a table.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

/// The namespace of the ids of revocations. Stored revocations depend on it: it never changes.
const REVOCATIONS: Uuid = Uuid::from_u128(0xbf59_6c59_87f1_48b3_9e63_3285_79b2_a50a);

/// Returns the id of a user of the app's own issuer: UUIDv5(UUIDv5(URL namespace, issuer), subject).
pub fn user_id(issuer: &str, subject: &str) -> Uuid {
    Namespaces::of(issuer).user(subject)
}

/// The namespaces of one issuer.
pub struct Namespaces {
    users: Uuid,
    revocations: Uuid,
}

impl Namespaces {
    pub fn of(issuer: &str) -> Self {
        Self {
            users: Uuid::new_v5(&Uuid::NAMESPACE_URL, issuer.as_bytes()),
            revocations: Uuid::new_v5(&REVOCATIONS, issuer.as_bytes()),
        }
    }

    pub fn user(&self, subject: &str) -> Uuid {
        Uuid::new_v5(&self.users, subject.as_bytes())
    }

    /// The id that revokes the tokens with this `jti`: UUIDv5(UUIDv5(namespace, issuer), "jti:" + `jti`).
    pub fn revocation(&self, jti: &str) -> Uuid {
        Uuid::new_v5(&self.revocations, &[&b"jti:"[..], jti.as_bytes()].concat())
    }

    /// The id that revokes a token without a `jti`: UUIDv5(UUIDv5(namespace, issuer), "sha256:" + the SHA-256 of the
    /// token up to its second dot, 32 bytes).
    pub fn revocation_of(&self, signed: &[u8]) -> Uuid {
        Uuid::new_v5(&self.revocations, &[&b"sha256:"[..], digest(&SHA256, signed).as_ref()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        assert_eq!(user_id("https://id.example.com/", "user_123").to_string(), "90b98074-64ad-5519-b800-eedf19d458d9");
        // The other two are computed by Python's uuid.uuid5.
        let ids = Namespaces::of("https://id.example.com/");
        assert_eq!(ids.revocation("token-1").to_string(), "c8385002-73a6-513e-9194-06938cebf515");
        assert_eq!(ids.revocation_of(b"e30.e30").to_string(), "cd019f5a-ddc9-5f19-a60c-62eecb69825d");
    }

    #[test]
    fn ids_differ_between_issuers() {
        let (one, other) = (Namespaces::of("https://a.example"), Namespaces::of("https://b.example"));
        assert_ne!(one.user("1"), other.user("1"));
        assert_ne!(one.revocation("1"), other.revocation("1"));
        assert_ne!(one.revocation("1"), one.user("1"));
    }
}
