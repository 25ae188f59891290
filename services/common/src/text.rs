//! Checks and comparison of names and texts that people type.

use unicode_normalization::UnicodeNormalization;

use crate::{Error, Result};

/// The form under which names are compared: the Unicode lowercase of their NFC form.
pub fn fold(name: &str) -> String {
    name.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// A name: trimmed, not blank, without control characters, at most `max` Unicode scalar values.
///
/// # Errors
/// `invalid_request` about `field`.
pub fn name(field: &str, value: &str, max: usize) -> Result<String> {
    let value = value.trim();
    if value.is_empty() {
        return Err(Error::field(field, "must not be blank"));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::field(field, "must not contain control characters"));
    }
    bounded(field, value, max)
}

/// A text of at most `max` Unicode scalar values without NUL characters.
///
/// # Errors
/// `invalid_request` about `field`.
pub fn bounded(field: &str, value: &str, max: usize) -> Result<String> {
    no_nul(field, value)?;
    if value.chars().count() > max {
        return Err(Error::field(field, format!("must be at most {max} characters")));
    }
    Ok(value.to_owned())
}

/// Refuses NUL characters, which Postgres cannot store.
///
/// # Errors
/// `invalid_request` about `field`.
pub fn no_nul(field: &str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::field(field, "must not contain NUL characters"));
    }
    Ok(())
}

/// The id in a field.
///
/// # Errors
/// `invalid_request` about `field`.
pub fn id(field: &str, value: &str) -> Result<uuid::Uuid> {
    // Only the canonical form: an id has one spelling.
    uuid::Uuid::try_parse(value)
        .ok()
        .filter(|id| id.as_hyphenated().encode_lower(&mut [0; 36]).eq_ignore_ascii_case(value))
        .ok_or_else(|| Error::field(field, "must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_knows_more_than_ascii() {
        assert_eq!(fold("ÄPFEL"), fold("a\u{308}pfel"));
        assert_eq!(fold("ПРИВЕТ"), "привет");
        assert_ne!(fold("a"), fold("b"));
    }

    #[test]
    fn names() {
        assert_eq!(name("name", "  Tea \u{1F375} ", 80).unwrap(), "Tea \u{1F375}");
        assert_eq!(name("name", &"é".repeat(80), 80).unwrap().chars().count(), 80);
        for bad in ["", " \t", "a\0b", "a\nb", &"é".repeat(81)] {
            assert_eq!(name("name", bad, 80).unwrap_err().fields[0].field, "name", "{bad:?}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let text = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";
        assert_eq!(id("roomId", text).unwrap().to_string(), text);
        for bad in ["", "0193a4c07d507cc398a52f6b8e1d0c01", "{0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01}", "x"] {
            assert!(id("roomId", bad).is_err(), "{bad:?}");
        }
    }
}
