//! The keys of one issuer.

use anyhow::{Context, ensure};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::key::{Key, MIN_SECRET};
use super::token::{Head, Reason};

/// Maximum number of keys of an issuer.
const MAX_KEYS: usize = 64;

/// The keys of one issuer. An id means a key of this issuer only: two issuers may use one id for different keys.
pub struct Keys(Vec<Key>);

/// A JSON Web Key Set (RFC 7517).
#[derive(Deserialize)]
struct KeySet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl Keys {
    /// Parses a key set. Keys of unknown types and for other uses are left out.
    ///
    /// # Errors
    /// When it is not a key set, contains no usable key or too many.
    pub fn of_set(json: &[u8], algorithms: &[Algorithm]) -> anyhow::Result<Self> {
        // The error of the parser could quote a secret.
        let set = serde_json::from_slice::<KeySet<'_>>(json).ok().context("the content is not a JSON Web Key Set")?;
        let usable = set.keys.iter().filter_map(|key| Key::of_jwk(&serde_json::from_str(key.get()).ok()?, algorithms));
        let usable = usable.take(MAX_KEYS + 1).collect::<Vec<_>>();
        ensure!(!usable.is_empty(), "the key set contains no key for {}", names(algorithms));
        ensure!(usable.len() <= MAX_KEYS, "the key set contains more than {MAX_KEYS} keys");
        Ok(Self(usable))
    }

    /// Parses the content of a key file: a key set, a public key in PEM, or for algorithms with a secret that secret.
    ///
    /// # Errors
    /// When it is none of them. The message quotes nothing of the content.
    pub fn of_file(content: &[u8], algorithms: &[Algorithm]) -> anyhow::Result<Self> {
        let needs_secret = algorithms.iter().all(|algorithm| algorithm.is_secret());
        let text = std::str::from_utf8(content)
            .ok()
            .context("the content is not text; a JSON Web Key Set can hold any bytes")?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if text.starts_with('{') {
            Self::of_set(text.as_bytes(), algorithms)
        } else if needs_secret {
            Self::of_secret(text, algorithms)
        } else {
            Self::of_pem(text, algorithms)
        }
    }

    fn of_secret(text: &str, algorithms: &[Algorithm]) -> anyhow::Result<Self> {
        ensure!(
            !text.contains(char::is_control),
            "the content is neither a JSON Web Key Set nor a secret in one line of text; a key set can hold any bytes"
        );
        let key = Key::of_secret(text.as_bytes(), algorithms);
        Ok(Self(vec![key.with_context(|| format!("the secret has fewer than {MIN_SECRET} bytes"))?]))
    }

    fn of_pem(text: &str, algorithms: &[Algorithm]) -> anyhow::Result<Self> {
        const HOW: &str = "`openssl pkey -pubout` makes a public key from a private one";
        let found = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let found = found.ok().filter(|found| !found.is_empty());
        let found = found
            .with_context(|| format!("the content is neither a JSON Web Key Set nor a public key in PEM; {HOW}"))?;
        let [der] = &found[..] else {
            anyhow::bail!("the file contains several public keys; several keys need ids, in a JSON Web Key Set");
        };
        let key = Key::of_public(der, algorithms);
        Ok(Self(vec![key.with_context(|| format!("the key does not fit {}", names(algorithms)))?]))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Verifies the signature of a token with the key that its head names.
    pub fn verify(&self, head: &Head<'_>, signed: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let key = self.find(head).ok_or("its `kid` names no key of the issuer that fits its algorithm")?;
        if key.verify(head.algorithm, signed, signature) { Ok(()) } else { Err("its signature is wrong") }
    }

    fn find(&self, head: &Head<'_>) -> Option<&Key> {
        match (&self.0[..], head.key_id.as_deref()) {
            // The only key is meant, unless the token names another one.
            ([only], id) if id.is_none() || only.id.is_none() => Some(only).filter(|key| key.fits(head.algorithm)),
            (keys, Some(id)) => keys.iter().find(|key| key.id.as_deref() == Some(id) && key.fits(head.algorithm)),
            (_, None) => None,
        }
    }
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}
