//! Tokens: JSON Web Tokens (RFC 7519) signed with EdDSA. Gateways verify them without calling this service.

use std::ops::RangeInclusive;
use std::time::Duration;

use confab_common::{Error, Result};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use uuid::Uuid;

use crate::key::{SigningKey, SigningKeys};

/// The `iss` and `aud` of every token.
const CONFAB: &str = "confab";
/// Allowed lifetimes of a token, and of a refresh token.
pub const LIFE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);
/// Longest lifetime of a token in a session with refresh tokens.
const ACCESS: Duration = Duration::from_secs(15 * 60);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: Uuid,
    name: &'a str,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

pub struct Token {
    /// The JWT.
    pub text: String,
    /// The token's `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// The lifetimes of the tokens of a session.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Of a token in a session without refresh tokens.
    pub token: Duration,
    /// Of a refresh token that no client uses.
    pub refresh: Duration,
}

impl Lifetimes {
    /// Returns the lifetime of a token in a session with or without refresh tokens.
    pub fn of_token(&self, refreshable: bool) -> Duration {
        if refreshable { ACCESS.min(self.token).min(self.refresh) } else { self.token }
    }
}

pub struct Tokens {
    key: EncodingKey,
    header: Header,
    jwks: String,
}

impl Tokens {
    /// Creates an issuer that signs with the first of these keys.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(keys: &SigningKeys) -> anyhow::Result<Self> {
        let published = keys.all().map(jwk).collect::<anyhow::Result<Vec<_>>>()?;
        let header = Header { kid: published[0].common.key_id.clone(), ..Header::new(Algorithm::EdDSA) };
        let jwks = serde_json::to_string(&JwkSet { keys: published })?;
        Ok(Self { key: EncodingKey::from_ed_der(&keys.signing().pkcs8()?), header, jwks })
    }

    /// Issues a token for a session of a user, valid for `life` from `now` (seconds since the Unix epoch). All tokens
    /// of a session have the same `jti`, its id.
    ///
    /// # Errors
    /// `internal` when signing fails.
    pub fn issue(&self, user: Uuid, name: &str, session: Uuid, now: i64, life: Duration) -> Result<Token> {
        let exp = now + life.as_secs() as i64;
        let claims = Claims { iss: CONFAB, aud: CONFAB, sub: user, name, jti: session, iat: now, nbf: now, exp };
        let text = jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(Error::internal)?;
        Ok(Token { text, expires_at_ms: exp * 1000 })
    }

    /// Returns the public keys as a JSON Web Key Set (RFC 7517), the signing key first.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }
}

/// Returns the public key in its published form.
fn jwk(key: &SigningKey) -> anyhow::Result<Jwk> {
    let mut jwk = Jwk::from_decoding_key(&DecodingKey::from_ed_der(key.public()), Some(Algorithm::EdDSA))?;
    // RFC 7638: every program that has the key derives the same id.
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(jwk)
}

#[cfg(test)]
mod tests;
