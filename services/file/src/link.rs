//! Links that need no token: a signature over the file and the link's expiry, with a key that belongs to the file and
//! is deleted with it. A link to a file of a private room also names the user who requested it, so that it ends with
//! the user's membership.

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_common::{Error, Result};
use uuid::Uuid;

/// Length of a key in bytes: the length of the hash.
const KEY_LEN: usize = 32;
/// Length of a user's id before the hash, in bytes.
const USER_LEN: usize = 16;

/// The key that signs the links to one file. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey(Vec<u8>);

impl LinkKey {
    pub fn random() -> Result<Self> {
        let mut key = vec![0; KEY_LEN];
        rand::fill(&mut key).map_err(|_| Error::internal("no randomness"))?;
        Ok(Self(key))
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the key's bytes, which are stored and must never be printed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns a signature with which a client can read `file` until a time in milliseconds since the Unix epoch, in the
    /// right of `user`; without a user, in the right of an anonymous reader.
    pub fn sign(&self, file: Uuid, expires_at_ms: i64, user: Option<Uuid>) -> String {
        let hash = hmac::sign(&self.key(), signed(file, expires_at_ms, user).as_bytes());
        let user = user.map(Uuid::into_bytes);
        URL_SAFE_NO_PAD.encode([user.as_ref().map_or(&[][..], |user| user), hash.as_ref()].concat())
    }

    /// Checks in constant time whether [`LinkKey::sign`] created this signature. Returns the user of the signature, or
    /// `None` when it is wrong.
    pub fn verifies(&self, file: Uuid, expires_at_ms: i64, signature: &str) -> Option<Option<Uuid>> {
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let (user, hash) = match signature.split_at_checked(USER_LEN) {
            Some((user, hash)) if signature.len() > KEY_LEN => (Some(Uuid::from_slice(user).ok()?), hash),
            _ => (None, &signature[..]),
        };
        hmac::verify(&self.key(), signed(file, expires_at_ms, user).as_bytes(), hash).ok().map(|()| user)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

fn signed(file: Uuid, expires_at_ms: i64, user: Option<Uuid>) -> String {
    match user {
        Some(user) => format!("{file}.{expires_at_ms}.{user}"),
        None => format!("{file}.{expires_at_ms}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_covers_file_expiry_user_and_key() {
        let (key, other) = (LinkKey::random().unwrap(), LinkKey::random().unwrap());
        let file = Uuid::now_v7();
        for user in [None, Some(Uuid::now_v7())] {
            let signature = key.sign(file, 1000, user);
            assert!(signature.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(LinkKey::from_bytes(key.expose().to_vec()).verifies(file, 1000, &signature), Some(user));
            assert_eq!(key.verifies(file, 1001, &signature), None);
            assert_eq!(key.verifies(Uuid::now_v7(), 1000, &signature), None);
            assert_eq!(other.verifies(file, 1000, &signature), None);
            let bytes = URL_SAFE_NO_PAD.decode(&signature).unwrap();
            let without_user = URL_SAFE_NO_PAD.encode(&bytes[bytes.len() - KEY_LEN..]);
            let of_another =
                URL_SAFE_NO_PAD.encode([&Uuid::now_v7().into_bytes(), &bytes[bytes.len() - KEY_LEN..]].concat());
            let changed = ["", "%", &signature[1..], &format!("{signature}A"), &signature.to_lowercase(), &of_another];
            for forged in changed.into_iter().chain(user.map(|_| &*without_user)) {
                assert_eq!(key.verifies(file, 1000, forged), None, "{forged}");
            }
        }
    }

    #[test]
    fn a_known_signature() {
        // Computed by another implementation of HMAC-SHA256, so that links survive a change of the library.
        let key = LinkKey::from_bytes(vec![7; 32]);
        let file = Uuid::from_u128(0x0193a4c0_7d50_7cc3_98a5_2f6b8e1d0c01);
        assert_eq!(key.sign(file, 1_700_000_000_000, None), "Vb9hWRH-HVg4zNGrz1vHGID5wOhJmE4R0kkTDotYEqU");
    }

    #[test]
    fn key_is_not_printed() {
        assert_eq!(format!("{:?}", LinkKey::from_bytes(vec![7; 32])), "[secret]");
    }
}
