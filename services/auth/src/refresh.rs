//! Refresh tokens. The successor of a token is derived from it, so that the service can answer a repeated request with
//! the same successor although it stores only hashes.
//!
//! A token consists of 32 secret bytes and a tag of 16 bytes, which proves that this installation issued it for that
//! session. So the service distinguishes a stolen old token, which ends the session, from an invented one, which does
//! not. The server keys are derived from the signing keys, and rotate with them.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use confab_common::{Error, Result};
use uuid::Uuid;

use crate::key::{SigningKey, SigningKeys};
use crate::secret::{random, sha256};

const PREFIX: &str = "cfr_";
/// Length of a UUID in a token.
const ID: usize = 36;
/// Bytes of the secret and of its tag.
const SECRET: usize = 32;
const TAG: usize = 16;

/// A refresh token of a session. Its secret is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    pub session_id: Uuid,
    secret: [u8; SECRET],
    tag: [u8; TAG],
}

impl RefreshToken {
    /// Parses a token; there is one spelling of each.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID)?;
        let session_id = Uuid::try_parse(id).ok()?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret.strip_prefix('_')?).ok()?;
        let (secret, tag) = bytes.split_at_checked(SECRET)?;
        let token = Self { session_id, secret: secret.try_into().ok()?, tag: tag.try_into().ok()? };
        (token.expose() == text).then_some(token)
    }

    /// Returns the token's text.
    pub fn expose(&self) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode([&self.secret[..], &self.tag].concat());
        format!("{PREFIX}{}_{secret}", self.session_id)
    }

    /// Returns the hash under which the token is stored.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&[&self.secret[..], &self.tag].concat())
    }
}

/// The server keys, one for each signing key and in the same order.
pub struct RefreshKeys(Vec<Key>);

struct Key {
    /// Derives successors.
    next: hmac::Key,
    /// Derives tags.
    tag: hmac::Key,
}

impl RefreshKeys {
    /// Derives the keys.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(keys: &SigningKeys) -> anyhow::Result<Self> {
        Ok(Self(keys.all().map(Key::derive).collect::<anyhow::Result<_>>()?))
    }

    /// Creates the first token of a session.
    ///
    /// # Errors
    /// `internal` when the system has no randomness.
    pub fn first(&self, session_id: Uuid) -> Result<RefreshToken> {
        let key = self.0.first().ok_or_else(|| Error::internal("there is at least one key"))?;
        Ok(key.token(session_id, random()?))
    }

    /// Returns the successor of a token under each key.
    pub fn successors(&self, token: &RefreshToken) -> Vec<RefreshToken> {
        let successor = |key: &Key| {
            let bound = [&token.session_id.as_bytes()[..], &token.secret, &token.tag].concat();
            let mut secret = [0; SECRET];
            secret.copy_from_slice(hmac::sign(&key.next, &bound).as_ref());
            key.token(token.session_id, secret)
        };
        self.0.iter().map(successor).collect()
    }

    /// Returns whether this installation issued the token for its session, with a key that it still has.
    pub fn issued(&self, token: &RefreshToken) -> bool {
        // Not in constant time: whether the tag is right is no secret, because the answer is the same.
        self.0.iter().any(|key| key.token(token.session_id, token.secret).tag == token.tag)
    }
}

impl Key {
    fn derive(key: &SigningKey) -> anyhow::Result<Self> {
        let root = Salt::new(HKDF_SHA256, b"confab refresh tokens").extract(&key.seed()?);
        let derive = |purpose: &str| -> anyhow::Result<hmac::Key> {
            let info = [purpose.as_bytes()];
            let key = root.expand(&info, hmac::HMAC_SHA256).map_err(|_| anyhow::anyhow!("cannot derive a key"))?;
            Ok(key.into())
        };
        Ok(Self { next: derive("next")?, tag: derive("tag")? })
    }

    fn token(&self, session_id: Uuid, secret: [u8; SECRET]) -> RefreshToken {
        let full = hmac::sign(&self.tag, &[&session_id.as_bytes()[..], &secret].concat());
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full.as_ref()[..TAG]);
        RefreshToken { session_id, secret, tag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const NEW: &str = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";

    fn keys(text: &str) -> RefreshKeys {
        RefreshKeys::new(&SigningKeys::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_token_has_one_spelling() {
        let token = keys(OLD).first(Uuid::now_v7()).unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 4 + 36 + 1 + 64);
        assert!(RefreshToken::parse(&text).is_some_and(|parsed| parsed == token));
        let id = token.session_id;
        let upper = text.replace(&id.to_string(), &id.to_string().to_uppercase());
        let braced = text.replace(&id.to_string(), &id.simple().to_string());
        for bad in ["", "cfr_", &text[4..], &text[..104], &format!("{text}A"), &format!("{text}="), &upper, &braced] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
        assert!(RefreshToken::parse(&format!("cfr_{}", "é".repeat(60))).is_none());
    }

    #[test]
    fn every_replica_derives_the_same_successor() {
        let token = keys(OLD).first(Uuid::now_v7()).unwrap();
        let successors = keys(OLD).successors(&token);
        assert!(successors == keys(OLD).successors(&token) && successors[0] != token);
        // During a rotation of the signing key, replicas have the keys in another order.
        let (appended, turned) = (format!("{OLD},{NEW}"), format!("{NEW},{OLD}"));
        assert!(keys(&appended).successors(&token)[0] == successors[0]);
        assert!(keys(&turned).successors(&token)[1] == successors[0]);
        assert!(keys(&turned).successors(&token)[0] != successors[0]);
        let other = RefreshToken { session_id: Uuid::now_v7(), ..token.clone() };
        assert!(keys(OLD).successors(&other)[0].secret != successors[0].secret, "bound to its session");
    }

    #[test]
    fn only_issued_tokens_have_a_valid_tag() {
        let token = keys(OLD).first(Uuid::now_v7()).unwrap();
        let both = keys(&format!("{NEW},{OLD}"));
        assert!(both.issued(&token) && both.issued(&keys(NEW).successors(&token)[0]));
        assert!(!keys(NEW).issued(&token));
        let mut forged = token.clone();
        forged.secret[0] ^= 1;
        let moved = RefreshToken { session_id: Uuid::now_v7(), ..token };
        assert!(!both.issued(&forged) && !both.issued(&moved));
    }
}
