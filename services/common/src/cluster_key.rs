//! The cluster's key: one secret from the operator, from which one key per purpose is derived (HKDF, RFC 5869).
//!
//! Earlier releases sign with the operator's text itself. So that both can run side by side during an upgrade, this
//! release signs hints and names nodes like the earlier releases, and also accepts signatures with the derived keys.
//! The next release signs with the derived keys.

use std::collections::HashSet;

use anyhow::ensure;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::Secret;

/// Minimum length of a key, in random bytes.
const MIN_BYTES: usize = 32;
/// 32 random bytes have 30 distinct values on average; 16 or fewer occur once in 10^9 keys.
const MAX_DISTINCT_OF_PATTERN: usize = 16;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub struct ClusterKey {
    /// Signs hints on the bus.
    pub bus: SigningKey,
    /// Signs requests from gateway to gateway.
    pub forward: SigningKey,
    /// Derives node ids.
    pub node: SigningKey,
    /// Hides the keys of rate limits.
    pub limits: hmac::Key,
}

#[derive(Clone)]
pub struct SigningKey {
    /// The operator's text itself, which the previous release uses for every purpose.
    pub former: hmac::Key,
    /// Derived for this purpose only.
    pub derived: hmac::Key,
}

impl ClusterKey {
    /// Parses a key from base64 (either alphabet, with or without padding) or hexadecimal.
    ///
    /// # Errors
    /// When the text has another encoding, is shorter than 32 bytes, or is obviously not random. The message does not
    /// quote the text.
    pub fn parse(secret: &Secret) -> anyhow::Result<Self> {
        const HOW: &str = "`openssl rand -base64 32` makes one";
        // `openssl rand -base64 64` prints two lines.
        let text = secret.expose().chars().filter(|c| !matches!(c, '\r' | '\n')).collect::<String>();
        let bytes = decode(&text).filter(|bytes| bytes.len() >= MIN_BYTES);
        ensure!(
            bytes.is_some(),
            "CONFAB_CLUSTER_KEY must be at least {MIN_BYTES} random bytes in base64 or hexadecimal; {HOW}"
        );
        let bytes = bytes.unwrap_or_default();
        ensure!(
            !is_patterned(&bytes) && !is_patterned_text(&text),
            "CONFAB_CLUSTER_KEY can be guessed: it must be {MIN_BYTES} or more random bytes; {HOW}"
        );
        let former = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let root = Salt::new(HKDF_SHA256, b"confab cluster key").extract(&bytes);
        let derive = |purpose: &str| -> anyhow::Result<SigningKey> {
            let info = [purpose.as_bytes()];
            let key = root
                .expand(&info, hmac::HMAC_SHA256)
                .map_err(|_| anyhow::anyhow!("cannot derive the key for the {purpose}"))?;
            Ok(SigningKey { former: former.clone(), derived: key.into() })
        };
        let (bus, forward, node) = (derive("bus")?, derive("forward")?, derive("node")?);
        Ok(Self { bus, forward, node, limits: derive("limits")?.derived })
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    // Hexadecimal digits are never parsed as base64: the key would seem longer than it is.
    if is_hex(text) {
        let pairs = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        return pairs.collect::<Option<_>>().filter(|_| text.len().is_multiple_of(2));
    }
    BASE64.decode(text.replace('+', "-").replace('/', "_")).ok()
}

/// Returns whether the bytes repeat a short pattern or change in equal steps.
fn is_patterned(bytes: &[u8]) -> bool {
    let distinct = bytes.iter().collect::<HashSet<_>>().len();
    let steady =
        bytes.windows(3).filter(|three| three[1].wrapping_sub(three[0]) == three[2].wrapping_sub(three[1])).count();
    distinct <= MAX_DISTINCT_OF_PATTERN || steady > bytes.len() / 4
}

/// Returns whether base64 text looks like words or keyboard rows: 43 random characters lack letters of one case only
/// once in 10^9.
fn is_patterned_text(text: &str) -> bool {
    let has = |kind: fn(&char) -> bool| text.chars().any(|c| kind(&c));
    let one_case = !(has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase));
    !is_hex(text) && (one_case || is_patterned(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "14a8dc68128b911a41ed4aa098fda912430c794ee559a41b10dc74092eaf7f91";

    fn parse(text: &str) -> anyhow::Result<ClusterKey> {
        ClusterKey::parse(&text.into())
    }

    #[test]
    fn documented_key_formats_are_accepted() {
        for good in [
            // `openssl rand -base64 32`; the same bytes in the other alphabet; without padding.
            "3q2+7wECAwT1bRz9q/0tYp8KXw5cHk2mVnL0aGZkQjE=",
            "3q2-7wECAwT1bRz9q_0tYp8KXw5cHk2mVnL0aGZkQjE=",
            "3q2-7wECAwT1bRz9q_0tYp8KXw5cHk2mVnL0aGZkQjE",
            // scripts/compose-env.sh
            HEX,
            &HEX.to_uppercase(),
            // openssl rand -base64 64
            "k4X0vQ7mJr2TzLw9Yc1HdPfN8sEbUa3GiKoRt6VxMyDqZjWu5nAhFl+Ce/BpSgIO\n7bR0xNdK2wYtQvMzJ4cL9aHfUE3oXsGiPk8TqDm6u1A=",
        ] {
            parse(good).map(drop).unwrap();
        }
    }

    #[test]
    fn every_encoding_of_random_bytes_is_accepted() {
        for _ in 0..10_000 {
            let mut bytes = [0; 32];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            for text in [BASE64.encode(bytes), hex] {
                assert!(parse(&text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn weak_keys_are_rejected_without_quoting_them() {
        let rows = "qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjklzxcvbnm";
        for bad in [
            "",
            "hunter2",
            "password12345678",
            "aaaaaaaaaaaaaaaa",
            "the key of a whole cluster",
            "dev-only-cluster-key",
            // 31 bytes in both encodings; an odd number of digits.
            "3q2+7wECAwT1bRz9q/0tYp8KXw5cHk2mVnL0aGZkQg==",
            &HEX[2..],
            &HEX[1..],
            // 22 bytes as hexadecimal, 33 as base64.
            &HEX[..44],
            &"a".repeat(64),
            &"A".repeat(44),
            &"0".repeat(64),
            &"0123456789abcdef".repeat(4),
            &"Password12345678".repeat(4),
            &"correcthorsebatterystaple".repeat(2),
            &(0..32).map(|n| format!("{n:02x}")).collect::<String>(),
            &(0..32).rev().map(|n| format!("{:02x}", n * 7)).collect::<String>(),
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            rows,
            &format!("{HEX} {HEX}"),
            &format!("{HEX}é"),
        ] {
            let error = parse(bad).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("CONFAB_CLUSTER_KEY ") && error.contains("openssl rand -base64 32"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let tags = |key: &ClusterKey| {
            let keys = [&key.bus.derived, &key.forward.derived, &key.node.derived, &key.limits, &key.bus.former];
            keys.map(|key| hmac::sign(key, b"the same").as_ref().to_vec())
        };
        let (one, again, other) =
            (parse(HEX).unwrap(), parse(&HEX.to_uppercase()).unwrap(), parse(&HEX.replace('8', "9")).unwrap());
        assert_eq!(tags(&one).iter().collect::<HashSet<_>>().len(), 5);
        // The derived keys depend on the bytes, not on their encoding; the former key is the text itself.
        assert_eq!(tags(&one)[..4], tags(&again)[..4]);
        assert_ne!(tags(&one)[4], tags(&again)[4]);
        assert!(tags(&one).iter().zip(tags(&other)).all(|(one, other)| *one != other));
        // HKDF-SHA256 computed by another implementation (Python's hmac), so that a release cannot change the
        // derivation by accident.
        let tag = tags(&one)[0].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(tag, "a14db2ad8d3da135b12a258596a5ee61ea433594d3b2ee2ae6d1a0029c5c9de4");
    }
}
