//! The key set of auth.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use confab_common::{Error, Result};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use tokio::time::Instant;

/// How long a key remains valid after auth last listed it. During a key rotation, replicas of auth list different keys,
/// and each fetch may reach another replica.
pub const KEY_LIFETIME: Duration = Duration::from_secs(180);
/// Most keys that are kept after auth no longer lists them.
pub const MAX_KEPT: usize = 16;

/// The keys that auth publishes, and those that it published recently.
pub struct Keys {
    pub json: Bytes,
    pub by_id: HashMap<String, Key>,
}

#[derive(Clone)]
pub struct Key {
    pub verifies: DecodingKey,
    published: Jwk,
    /// When auth last listed the key.
    listed: Instant,
}

impl Keys {
    /// The keys of a set, and the keys of the previous set that auth listed recently.
    pub fn parse(json: String, before: Option<&Self>) -> Result<Self> {
        let mut set: JwkSet = serde_json::from_str(&json).map_err(Error::internal)?;
        let listed = Instant::now();
        let usable = set.keys.iter().filter_map(|key| match &key.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                let verifies = DecodingKey::from_jwk(key).ok()?;
                Some((key.common.key_id.clone()?, Key { verifies, published: key.clone(), listed }))
            }
            _ => None,
        });
        let mut by_id = usable.collect::<HashMap<_, _>>();
        let is_kept = |(id, key): &(&String, &Key)| !by_id.contains_key(*id) && key.listed.elapsed() < KEY_LIFETIME;
        let mut kept = before.iter().flat_map(|keys| &keys.by_id).filter(is_kept).collect::<Vec<_>>();
        if kept.is_empty() {
            return Ok(Self { by_id, json: json.into() });
        }
        kept.sort_unstable_by_key(|(_, key)| std::cmp::Reverse(key.listed));
        kept.truncate(MAX_KEPT);
        set.keys.extend(kept.iter().map(|(_, key)| key.published.clone()));
        by_id.extend(kept.into_iter().map(|(id, key)| (id.clone(), key.clone())));
        Ok(Self { json: serde_json::to_vec(&set).map_err(Error::internal)?.into(), by_id })
    }
}
