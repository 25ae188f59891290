//! A key that verifies the signatures of tokens.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{ED25519, ParsedPublicKey};

use super::algorithm::{Algorithm, Scheme};
use super::jwk::Jwk;

/// Minimum length of a shared secret, in bytes.
pub const MIN_SECRET: usize = 32;

/// A key, parsed once for each algorithm with which it may be used.
pub struct Key {
    pub id: Option<String>,
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl Key {
    /// Returns the key, if it may verify signatures with one of these algorithms.
    pub fn of_jwk(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Self> {
        let is_meant = |algorithm: Algorithm| jwk.alg.as_ref().is_none_or(|name| name == algorithm.name());
        let verifier = |algorithm| Verifier::of_jwk(jwk, algorithm).filter(|_| is_meant(algorithm));
        jwk.is_for_signatures().then(|| Self::of(jwk.kid.clone(), algorithms, verifier)).flatten()
    }

    /// Returns the key in a SubjectPublicKeyInfo (RFC 5280), if it fits one of these algorithms.
    pub fn of_public(der: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        Self::of(None, algorithms, |algorithm| Verifier::of_public(der, algorithm))
    }

    /// Returns the shared secret, if it is long enough and one of these algorithms needs a secret.
    pub fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        Self::of(None, algorithms, |algorithm| Verifier::of_secret(secret, algorithm))
    }

    fn of(
        id: Option<String>,
        algorithms: &[Algorithm],
        verifier: impl Fn(Algorithm) -> Option<Verifier>,
    ) -> Option<Self> {
        let verifiers =
            algorithms.iter().filter_map(|algorithm| Some((*algorithm, verifier(*algorithm)?))).collect::<Vec<_>>();
        (!verifiers.is_empty()).then_some(Self { id, verifiers })
    }

    /// Returns whether the key may be used with this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifier(algorithm).is_some()
    }

    pub fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match self.verifier(algorithm) {
            Some(Verifier::Public(key)) => key.verify_sig(signed, signature).is_ok(),
            Some(Verifier::Secret(key)) => hmac::verify(key, signed, signature).is_ok(),
            None => false,
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).map(|(_, verifier)| verifier)
    }
}

impl Verifier {
    fn of_jwk(jwk: &Jwk, algorithm: Algorithm) -> Option<Self> {
        let key = match algorithm.scheme() {
            Scheme::Ed25519 => ParsedPublicKey::new(&ED25519, jwk.ed25519()?),
            Scheme::Ecdsa { curve, coordinate, verification } => {
                ParsedPublicKey::new(verification, jwk.point(curve, coordinate)?)
            }
            Scheme::Rsa(parameters) => {
                let (n, e) = jwk.rsa()?;
                let bits = 8 * n.len() - n.first()?.leading_zeros() as usize;
                if !(parameters.min_modulus_len()..=parameters.max_modulus_len()).contains(&u32::try_from(bits).ok()?) {
                    return None;
                }
                PublicKeyComponents { n, e }.to_parsed_public_key(parameters)
            }
            Scheme::Hmac(_) => return Self::of_secret(&jwk.secret()?, algorithm),
        };
        key.ok().map(Self::Public)
    }

    fn of_public(der: &[u8], algorithm: Algorithm) -> Option<Self> {
        let key = match algorithm.scheme() {
            Scheme::Ed25519 => ParsedPublicKey::new(&ED25519, der),
            Scheme::Ecdsa { verification, .. } => ParsedPublicKey::new(verification, der),
            Scheme::Rsa(parameters) => {
                // Rejects keys of fewer than 2,048 bits, which could not verify any signature.
                PublicEncryptingKey::from_der(der).ok()?;
                ParsedPublicKey::new(parameters, der)
            }
            Scheme::Hmac(_) => return None,
        };
        key.ok().map(Self::Public)
    }

    fn of_secret(secret: &[u8], algorithm: Algorithm) -> Option<Self> {
        match algorithm.scheme() {
            Scheme::Hmac(algorithm) if secret.len() >= MIN_SECRET => {
                Some(Self::Secret(Box::new(hmac::Key::new(algorithm, secret))))
            }
            _ => None,
        }
    }
}
