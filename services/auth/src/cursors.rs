//! The cursors of searches for users. A cursor names the user at which a page ends, also a user that the reader of the
//! page must not find. So it is encrypted, with a key derived from the signing keys, which all replicas share. All
//! cursors have the same length, whatever the name.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use confab_common::{Error, Result};
use uuid::Uuid;

use crate::key::{SigningKey, SigningKeys};
use crate::store::MatchPosition;

/// Longest cursor that is decoded, in characters.
const MAX_LEN: usize = 4096;
/// Length of a position before it is encrypted, in bytes: 16 for the id, and the folded form of 80 characters has at
/// most 960. NUL characters, which no name contains, fill the rest.
const LENGTH: usize = 1024;
/// Length of a UUID in a position, in bytes.
const ID: usize = 16;

/// The keys, one for each signing key and in the same order.
pub struct CursorKeys(Vec<RandomizedNonceKey>);

impl CursorKeys {
    /// Derives the keys.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(keys: &SigningKeys) -> anyhow::Result<Self> {
        Ok(Self(keys.all().map(derive).collect::<anyhow::Result<_>>()?))
    }

    /// Encrypts a position in the list of one search.
    ///
    /// # Errors
    /// `internal` when the crypto library fails.
    pub fn seal(&self, search: &str, at: &MatchPosition) -> Result<String> {
        let key = self.0.first().ok_or_else(|| Error::internal("there is at least one key"))?;
        let mut text = [at.id.as_bytes(), at.name.as_bytes()].concat();
        text.resize(text.len().next_multiple_of(LENGTH), 0);
        let nonce = key.seal_in_place_append_tag(Aad::from(search), &mut text).map_err(Error::internal)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&nonce.as_ref()[..], &text].concat()))
    }

    /// Decrypts a position in the list of the same search.
    ///
    /// # Errors
    /// `invalid_request` for the field `cursor` if [`seal`](Self::seal) did not produce the text for this search.
    pub fn open(&self, search: &str, cursor: &str) -> Result<MatchPosition> {
        self.opened(search, cursor).ok_or_else(|| Error::field("cursor", "must be a cursor that this list returned"))
    }

    fn opened(&self, search: &str, cursor: &str) -> Option<MatchPosition> {
        let sealed = Some(cursor).filter(|cursor| cursor.len() <= MAX_LEN)?;
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let (nonce, mut text) = (Nonce::try_assume_unique_for_key(nonce).ok()?, text.to_vec());
            let position = key.open_in_place(nonce, Aad::from(search), &mut text).ok()?;
            let (id, name) = position.split_at_checked(ID)?;
            let name = str::from_utf8(name).ok()?.trim_end_matches('\0').to_owned();
            Some(MatchPosition { name, id: Uuid::from_slice(id).ok()? })
        })
    }
}

fn derive(key: &SigningKey) -> anyhow::Result<RandomizedNonceKey> {
    let failed = |_| anyhow::anyhow!("cannot derive a key");
    let root = Salt::new(HKDF_SHA256, b"confab cursors of users").extract(&key.seed()?);
    let mut bytes = [0; 32];
    root.expand(&[b"cursor"], HKDF_SHA256).and_then(|derived| derived.fill(&mut bytes)).map_err(failed)?;
    // A key that tolerates equal nonces: each page creates up to 200 cursors, without a limit on the number of pages.
    RandomizedNonceKey::new(&AES_256_GCM_SIV, &bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::username;

    const OLD: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const NEW: &str = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";

    fn keys(text: &str) -> CursorKeys {
        CursorKeys::new(&SigningKeys::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_cursor_belongs_to_its_search_and_hides_the_user() {
        let at = MatchPosition { name: "zoë of the hidden room".into(), id: Uuid::now_v7() };
        let cursor = keys(OLD).seal("zo", &at).unwrap();
        assert_eq!(keys(OLD).open("zo", &cursor).unwrap(), at);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for secret in [at.name.as_bytes(), at.id.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        assert_ne!(keys(OLD).seal("zo", &at).unwrap(), cursor);
        let forged = format!("A{}", &cursor[1..]);
        let forged = if forged == cursor { format!("B{}", &cursor[1..]) } else { forged };
        for (search, bad) in [
            ("zoe", &*cursor),
            ("zo", &forged),
            ("zo", ""),
            ("zo", "%"),
            ("zo", &cursor[..20]),
            ("zo", &"A".repeat(5000)),
        ] {
            let error = keys(OLD).open(search, bad).unwrap_err();
            assert_eq!(error.fields[0].field, "cursor", "{search} {bad}");
        }
    }

    #[test]
    fn the_length_of_a_cursor_is_that_of_every_other() {
        let keys = keys(OLD);
        // One of the longest forms: three characters of 4 bytes for each typed one.
        let longest = username::folded(&"\u{1d160}".repeat(80));
        assert_eq!(longest.len(), 960);
        let lengths = ["", "ada", "zoë of the hidden room", &longest].map(|name| {
            let at = MatchPosition { name: name.into(), id: Uuid::now_v7() };
            let cursor = keys.seal("zo", &at).unwrap();
            assert_eq!(keys.open("zo", &cursor).unwrap(), at);
            cursor.len()
        });
        assert_eq!(lengths, [1403; 4]);
    }

    #[test]
    fn a_cursor_survives_a_rotation_of_the_signing_key() {
        let at = MatchPosition { name: "ada".into(), id: Uuid::now_v7() };
        let cursor = keys(OLD).seal("ad", &at).unwrap();
        assert_eq!(keys(&format!("{NEW},{OLD}")).open("ad", &cursor).unwrap(), at);
        keys(NEW).open("ad", &cursor).unwrap_err();
    }
}
