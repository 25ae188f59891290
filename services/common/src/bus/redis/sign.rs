//! Signatures of payloads.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use bytes::Bytes;

use crate::cluster_key::SigningKey;

/// Signs payloads with the cluster's key. The signature covers the channel, so a program that can reach Redis but has
/// no key cannot forge hints. This release signs so that the previous release can verify, and also accepts the next
/// release's signatures with the derived key.
#[derive(Clone)]
pub(super) struct Signer(Option<Arc<SigningKey>>);

/// A truncated HMAC-SHA256 tag (RFC 2104 section 5 allows half the length).
pub(super) const TAG: usize = 16;

impl Signer {
    pub fn new(key: Option<&SigningKey>) -> Self {
        Self(key.cloned().map(Arc::new))
    }

    fn tag(key: &hmac::Key, channel: &str, payload: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(channel.as_bytes());
        context.update(&[0]);
        context.update(payload);
        context.sign()
    }

    pub fn sign(&self, channel: &str, payload: Bytes) -> Bytes {
        let Some(key) = &self.0 else { return payload };
        let tag = Self::tag(&key.former, channel, &payload);
        [&tag.as_ref()[..TAG], &payload].concat().into()
    }

    pub fn verify(&self, channel: &str, signed: &[u8]) -> Option<Bytes> {
        let Some(key) = &self.0 else { return Some(Bytes::copy_from_slice(signed)) };
        let (tag, payload) = signed.split_at_checked(TAG)?;
        let is_of = |key| {
            constant_time::verify_slices_are_equal(&Self::tag(key, channel, payload).as_ref()[..TAG], tag).is_ok()
        };
        (is_of(&key.former) || is_of(&key.derived)).then(|| Bytes::copy_from_slice(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(text: &str) -> (SigningKey, Signer) {
        let key = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let key = SigningKey { former: key(text), derived: key(&format!("derived from {text}")) };
        (key.clone(), Signer(Some(Arc::new(key))))
    }

    #[test]
    fn signature_covers_payload_and_channel() {
        let [(keys, one), (_, other)] = ["k1", "k2"].map(signer);
        for key in [&keys.former, &keys.derived] {
            let tag = Signer::tag(key, "a", b"hello");
            let signed = [&tag.as_ref()[..TAG], b"hello"].concat();
            assert_eq!(one.verify("a", &signed).unwrap(), "hello");
            assert!(one.verify("b", &signed).is_none());
            assert!(other.verify("a", &signed).is_none());
            for at in [0, TAG - 1, TAG, signed.len() - 1] {
                let mut changed = signed.clone();
                changed[at] ^= 1;
                assert!(one.verify("a", &changed).is_none(), "{at}");
            }
        }
        assert!(one.verify("a", b"short").is_none());
    }

    #[test]
    fn previous_release_can_verify_signatures() {
        let (keys, signer) = signer("k1");
        let signed = signer.sign("a", Bytes::from_static(b"hello"));
        let (tag, payload) = signed.split_at(TAG);
        let mut whole = b"a\0".to_vec();
        whole.extend_from_slice(payload);
        assert_eq!(&hmac::sign(&keys.former, &whole).as_ref()[..TAG], tag);
    }
}
