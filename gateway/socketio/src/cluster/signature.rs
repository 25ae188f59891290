//! Authentication between nodes: each request contains a signature over its head, its body, the time and a nonce.
//!
//! The previous release signs and verifies only the head and the time, with the cluster's former key; this older
//! signature is called the seal. Requests of this release contain both, and requests with only the seal are still
//! accepted. Requests of this release also contain a mark in the query, which both signatures cover. A marked request
//! without the signature is rejected, so an attacker cannot downgrade it by removing the signature.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_common::cluster_key::SigningKey;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use uuid::Uuid;

/// The header of the seal: `<seconds since 1970>.<tag>`.
const SEAL: HeaderName = HeaderName::from_static("confab-forward");
/// The header of the signature: `<seconds since 1970>.<nonce>.<SHA-256 of the body>.<tag>`.
const SIGNATURE: HeaderName = HeaderName::from_static("confab-signature");
/// The end of the query of every request with a signature.
const MARK: &str = "&forward=2";

/// How far two clocks may differ, in seconds.
const CLOCKS_DIFFER: i64 = 60;
/// How long a nonce is stored: longer than its signature is valid.
const REMEMBER: Duration = Duration::from_secs(2 * CLOCKS_DIFFER as u64 + 1);
/// Maximum number of stored nonces (about 10 MB). Beyond that, the oldest ones are dropped.
const MAX_NONCES: u64 = 65_536;

/// Signs requests to other nodes of the cluster and verifies theirs.
pub struct Signer {
    key: SigningKey,
    nonces: Cache<Uuid, ()>,
}

/// The part of a verified request that its signature covers in addition to the head.
#[derive(Debug, PartialEq, Eq)]
pub enum Covers {
    /// The head only: the request comes from the previous release.
    Head,
    /// Also the body, with this SHA-256.
    Body(Vec<u8>),
}

impl Covers {
    /// Whether `body` is the signed body.
    pub fn is_of(&self, body: &[u8]) -> bool {
        match self {
            Self::Head => true,
            Self::Body(signed) => *signed == digest(&SHA256, body).as_ref(),
        }
    }
}

impl Signer {
    pub fn new(key: SigningKey) -> Self {
        let nonces =
            Cache::builder().max_capacity(MAX_NONCES).time_to_live(REMEMBER).eviction_policy(EvictionPolicy::lru());
        Self { key, nonces: nonces.build() }
    }

    /// Adds the mark to the target of a request. It must be signed afterwards.
    pub fn mark(target: &str) -> String {
        format!("{target}{MARK}")
    }

    /// Signs a request to the node with this id; returns the headers. The target must contain the mark.
    pub fn sign(&self, to: &str, method: &Method, uri: &Uri, body: &[u8]) -> HeaderMap {
        self.sign_at(Timestamp::now().as_second(), to, method, uri, body)
    }

    fn sign_at(&self, second: i64, to: &str, method: &Method, uri: &Uri, body: &[u8]) -> HeaderMap {
        let seal = hmac::sign(&self.key.former, former_line(second, to, method, uri).as_bytes());
        let seal = format!("{second}.{}", URL_SAFE_NO_PAD.encode(seal));
        let (nonce, body) = (Uuid::new_v4(), URL_SAFE_NO_PAD.encode(digest(&SHA256, body)));
        let tag = hmac::sign(&self.key.derived, line(second, nonce, &body, to, method, uri).as_bytes());
        let signature = format!("{second}.{nonce}.{body}.{}", URL_SAFE_NO_PAD.encode(tag));
        let headers = [(SEAL, seal), (SIGNATURE, signature)];
        headers.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
    }

    /// Verifies that a node of this cluster signed this request to the node with this id within the last 60 s. `None`
    /// when the signature is missing or wrong, or when the request is a POST that was accepted before.
    pub async fn verify(&self, head: &Parts, to: &str) -> Option<Covers> {
        let Some(signature) = head.headers.get(SIGNATURE) else { return self.verify_former(head, to) };
        let mut parts = signature.to_str().ok()?.split('.');
        let mut part = || parts.next();
        let (second, nonce, body, tag) = (part()?.parse().ok()?, part()?.parse().ok()?, part()?, part()?);
        let line = line(second, nonce, body, to, &head.method, &head.uri);
        hmac::verify(&self.key.derived, line.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let is_first = async || self.nonces.entry(nonce).or_insert(()).await.is_fresh();
        let taken = is_recent(second) && (head.method != Method::POST || is_first().await);
        taken.then(|| URL_SAFE_NO_PAD.decode(body).ok().map(Covers::Body)).flatten()
    }

    fn verify_former(&self, head: &Parts, to: &str) -> Option<Covers> {
        if head.uri.query().is_some_and(|query| query.ends_with(MARK)) {
            return None;
        }
        let (second, tag) = head.headers.get(SEAL)?.to_str().ok()?.split_once('.')?;
        let second = second.parse().ok().filter(|second| is_recent(*second))?;
        let line = former_line(second, to, &head.method, &head.uri);
        hmac::verify(&self.key.former, line.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        Some(Covers::Head)
    }
}

fn is_recent(second: i64) -> bool {
    Timestamp::now().as_second().abs_diff(second) <= CLOCKS_DIFFER as u64
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// The text that the signature's tag covers. No part contains a space.
fn line(second: i64, nonce: Uuid, body: &str, to: &str, method: &Method, uri: &Uri) -> String {
    format!("{second} {nonce} {body} {to} {method} {}", target(uri))
}

/// The text that the seal's tag covers. The prefix separates it from other texts that are signed with the former key.
fn former_line(second: i64, to: &str, method: &Method, uri: &Uri) -> String {
    format!("confab forward {second} {to} {method} {}", target(uri))
}

#[cfg(test)]
mod tests {
    use confab_common::testing::cluster_key;
    use http::Request;

    use super::*;

    const TARGET: &str = "/socket.io/?sid=x&forward=2";

    fn signer(key: &str) -> Signer {
        Signer::new(cluster_key(key).forward)
    }

    fn head(method: Method, target: &str, headers: HeaderMap) -> Parts {
        let mut head = Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0;
        head.headers = headers;
        head
    }

    fn uri(target: &str) -> Uri {
        // The signature does not cover the address, because requests arrive without it.
        format!("http://10.0.0.1:1{target}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_signature_covers_request_node_and_time() {
        let (ours, theirs) = (signer("ours"), signer("theirs"));
        assert_eq!(Signer::mark("/socket.io/?sid=x"), TARGET);
        let signed = ours.sign("node", &Method::GET, &uri(TARGET), b"body");
        let arrived = |method, target| head(method, target, signed.clone());
        let covers = ours.verify(&arrived(Method::GET, TARGET), "node").await.unwrap();
        assert!(covers.is_of(b"body") && !covers.is_of(b"other") && !covers.is_of(b""));
        assert_eq!(theirs.verify(&arrived(Method::GET, TARGET), "node").await, None);
        assert_eq!(ours.verify(&arrived(Method::GET, TARGET), "another").await, None);
        assert_eq!(ours.verify(&arrived(Method::POST, TARGET), "node").await, None);
        assert_eq!(ours.verify(&arrived(Method::GET, "/socket.io/?sid=y&forward=2"), "node").await, None);

        let now = Timestamp::now().as_second();
        for (second, good) in
            [(now - 30, true), (now + 30, true), (now - 90, false), (now + 90, false), (i64::MIN, false)]
        {
            let mut signed = ours.sign_at(second, "node", &Method::GET, &uri(TARGET), b"");
            assert_eq!(
                ours.verify(&head(Method::GET, TARGET, signed.clone()), "node").await.is_some(),
                good,
                "{second}"
            );
            // The seal alone is not accepted for a marked request.
            signed.remove(SIGNATURE);
            assert_eq!(ours.verify(&head(Method::GET, TARGET, signed), "node").await, None);
        }
    }

    #[tokio::test]
    async fn every_change_of_a_signature_is_rejected() {
        let ours = signer("ours");
        let signed = ours.sign("node", &Method::GET, &uri(TARGET), b"");
        let good = signed[SIGNATURE].to_str().unwrap();
        let other = ours.sign("node", &Method::GET, &uri(TARGET), b"other");
        let parts = good.split('.').zip(other[SIGNATURE].to_str().unwrap().split('.')).skip(1);
        let swapped = parts.map(|(old, new)| good.replace(old, new));
        let cut = (0..good.len()).map(|end| good[..end].to_owned());
        let longer = [format!("{good}A"), format!("+{good}x"), good.replace('.', "..")];
        for bad in swapped.chain(cut).chain(longer) {
            let headers = HeaderMap::from_iter([(SIGNATURE, bad.parse().unwrap())]);
            assert_eq!(ours.verify(&head(Method::GET, TARGET, headers), "node").await, None, "{bad}");
        }
        assert_eq!(ours.verify(&head(Method::GET, TARGET, HeaderMap::new()), "node").await, None);
    }

    #[tokio::test]
    async fn a_signed_post_is_accepted_once_even_when_clocks_differ() {
        let ours = signer("ours");
        let now = Timestamp::now().as_second();
        for second in [now, now - 50, now + 50] {
            let sign = |method| ours.sign_at(second, "node", method, &uri(TARGET), b"body");
            let signed = sign(&Method::POST);
            assert!(ours.verify(&head(Method::POST, TARGET, signed.clone()), "node").await.is_some());
            assert_eq!(ours.verify(&head(Method::POST, TARGET, signed), "node").await, None);
            // A repeat by the client has a new signature.
            assert!(ours.verify(&head(Method::POST, TARGET, sign(&Method::POST)), "node").await.is_some());
        }
        ours.nonces.run_pending_tasks().await;
        assert_eq!(ours.nonces.entry_count(), 6);
        assert_eq!(ours.nonces.policy().max_capacity(), Some(MAX_NONCES));
    }

    #[tokio::test]
    async fn the_previous_release_is_compatible() {
        let ours = signer("ours");
        let key = cluster_key("ours").forward.former;
        let now = Timestamp::now().as_second();
        let seal = |second: i64, target: &str| {
            let tag = hmac::sign(&key, format!("confab forward {second} node POST {target}").as_bytes());
            format!("{second}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let plain = "/socket.io/?sid=x";
        for (second, target, good) in [(now, plain, true), (now - 90, plain, false), (now, TARGET, false)] {
            let headers = HeaderMap::from_iter([(SEAL, seal(second, target).parse().unwrap())]);
            let covers = ours.verify(&head(Method::POST, target, headers), "node").await;
            assert_eq!(covers, good.then_some(Covers::Head), "{second} {target}");
        }
        let signed = ours.sign_at(now, "node", &Method::POST, &uri(TARGET), b"body");
        assert_eq!(signed[SEAL], seal(now, TARGET));
    }
}
