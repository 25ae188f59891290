//! Opaque page cursors: a serialised position in base64url. A cursor is neither secret nor trusted; the caller of
//! `decode` must validate the position.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Longest cursor that is decoded, in characters.
const MAX_LEN: usize = 4096;

pub fn encode<T: Serialize>(position: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// Decodes the position in a cursor.
///
/// # Errors
/// `invalid_request` for the field `cursor` if [`encode`] did not produce the text for this type.
pub fn decode<T: DeserializeOwned>(cursor: &str) -> Result<T> {
    let bad = || Error::field("cursor", "must be a cursor that this list returned");
    if cursor.len() > MAX_LEN {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_reject_garbage() {
        let cursor = encode(&("room", 7u64));
        assert_eq!(decode::<(String, u64)>(&cursor).unwrap(), ("room".to_owned(), 7));
        for bad in ["", "%%%", "bm90IGpzb24", &"A".repeat(5000), &encode(&7)] {
            assert!(decode::<(String, u64)>(bad).is_err(), "{bad}");
        }
    }
}
