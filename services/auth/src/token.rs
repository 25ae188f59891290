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
/// Allowed lifetimes of a token.
pub const LIFE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);

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

pub struct Tokens {
    key: EncodingKey,
    header: Header,
    jwks: String,
    ttl: Duration,
}

impl Tokens {
    /// Creates an issuer that signs with the first of these keys; tokens live for `ttl`.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(keys: &SigningKeys, ttl: Duration) -> anyhow::Result<Self> {
        let published = keys.all().map(jwk).collect::<anyhow::Result<Vec<_>>>()?;
        let header = Header { kid: published[0].common.key_id.clone(), ..Header::new(Algorithm::EdDSA) };
        let jwks = serde_json::to_string(&JwkSet { keys: published })?;
        Ok(Self { key: EncodingKey::from_ed_der(&keys.signing().pkcs8()?), header, jwks, ttl })
    }

    /// Issues a token for a new session of a user, valid from `now` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// `internal` when signing fails.
    pub fn issue(&self, user: Uuid, name: &str, now: i64) -> Result<Token> {
        let exp = now + self.ttl.as_secs() as i64;
        let claims = Claims { iss: CONFAB, aud: CONFAB, sub: user, name, jti: Uuid::now_v7(), iat: now, nbf: now, exp };
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
mod tests {
    use jsonwebtoken::{Validation, decode};
    use serde_json::{Value, json};

    use super::*;

    /// The key of RFC 8037, appendix A, whose thumbprint the RFC states.
    const RFC: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";

    fn tokens(ttl: Duration) -> anyhow::Result<Tokens> {
        Tokens::new(&SigningKeys::parse(RFC).unwrap(), ttl)
    }

    #[test]
    fn first_key_signs_and_all_are_published() {
        let other = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
        let ids = |keys: &str| {
            let tokens = Tokens::new(&SigningKeys::parse(keys).unwrap(), *LIFE.end()).unwrap();
            let set = serde_json::from_str::<JwkSet>(tokens.jwks()).unwrap();
            let token = tokens.issue(Uuid::now_v7(), "ada", 0).unwrap();
            let ids = set.keys.into_iter().map(|key| key.common.key_id.unwrap()).collect::<Vec<_>>();
            (ids, jsonwebtoken::decode_header(&token.text).unwrap().kid.unwrap())
        };
        let (one, signs) = ids(RFC);
        assert_eq!(one, std::slice::from_ref(&signs));
        let (two, first) = ids(&format!("{RFC},{other}"));
        assert_eq!((two.len(), &two[0], &first), (2, &signs, &signs));
        let (turned, first) = ids(&format!("{other},{RFC}"));
        assert_eq!((&turned[0], &turned[1], &first), (&two[1], &two[0], &two[1]));
    }

    #[test]
    fn key_set_matches_the_rfc() {
        let jwks = serde_json::from_str::<Value>(tokens(*LIFE.end()).unwrap().jwks()).unwrap();
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig"
        });
        assert_eq!(jwks, json!({ "keys": [key] }));
    }

    #[test]
    fn token_verifies_with_the_key_set() {
        let tokens = tokens(Duration::from_secs(3600)).unwrap();
        let (user, now) = (Uuid::now_v7(), jsonwebtoken::get_current_timestamp() as i64);
        let token = tokens.issue(user, "Zoë", now).unwrap();
        let keys = serde_json::from_str::<JwkSet>(tokens.jwks()).unwrap();
        let kid = jsonwebtoken::decode_header(&token.text).unwrap().kid.unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["confab"]);
        validation.set_issuer(&["confab"]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let claims = decode::<Value>(&token.text, &key, &validation).unwrap().claims;
        assert_eq!((claims["sub"].as_str(), claims["name"].as_str()), (Some(user.to_string().as_str()), Some("Zoë")));
        assert_eq!(claims["jti"].as_str().unwrap().parse::<Uuid>().unwrap().get_version_num(), 7);
        assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(now), Some(now + 3600)));
        assert_eq!(token.expires_at_ms, (now + 3600) * 1000);
    }
}
