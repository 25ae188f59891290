//! Validates and compares names and texts that users type.

mod printable;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

use crate::{Error, Result};
use printable::Lines;
pub use printable::is_blank;

/// Returns the form in which names are compared: the Unicode case folding of the NFC form.
pub fn fold(name: &str) -> String {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    nfc.normalize(&CaseMapper::new().fold_string(&nfc.normalize(name))).into_owned()
}

/// Validates a name and trims it. A name has at most `max` Unicode scalar values on one line, at least one visible
/// character, and no superfluous invisible characters.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn name(field: &str, value: &str, max: usize) -> Result<String> {
    let name = bounded(field, value.trim(), max)?;
    if name.is_empty() {
        return Err(Error::field(field, "must not be blank"));
    }
    printable::check(field, &name, Lines::One)?;
    Ok(name)
}

/// Validates a description: like a name, but it may be empty, may have several lines, and is not trimmed.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn description(field: &str, value: &str, max: usize) -> Result<String> {
    let description = bounded(field, value, max)?;
    if !description.is_empty() {
        printable::check(field, &description, Lines::Many)?;
    }
    Ok(description)
}

/// Validates a text of at most `max` Unicode scalar values without NUL characters.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn bounded(field: &str, value: &str, max: usize) -> Result<String> {
    no_nul(field, value)?;
    if value.chars().count() > max {
        return Err(Error::field(field, format!("must be at most {max} characters")));
    }
    Ok(value.to_owned())
}

/// Rejects NUL characters, which Postgres cannot store.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn no_nul(field: &str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::field(field, "must not contain NUL characters"));
    }
    Ok(())
}

/// Parses the id in a field.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn id(field: &str, value: &str) -> Result<uuid::Uuid> {
    // Only the canonical form is accepted, so that an id has one spelling.
    uuid::Uuid::try_parse(value)
        .ok()
        .filter(|id| id.as_hyphenated().encode_lower(&mut [0; 36]).eq_ignore_ascii_case(value))
        .ok_or_else(|| Error::field(field, "must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_covers_more_than_ascii() {
        assert_eq!(fold("ÄPFEL"), fold("a\u{308}pfel"));
        assert_eq!(fold("ПРИВЕТ"), "привет");
        assert_ne!(fold("a"), fold("b"));
        // All spellings of a name fold to one form.
        for (one, other) in [
            ("μαριος", "ΜΑΡΙΟΣ"),
            ("μαριοσ", "ΜΑΡΙΟΣ"),
            ("straße", "STRASSE"),
            ("STRA\u{1E9E}E", "strasse"),
            ("\u{212A}elvin", "kelvin"),
            ("\u{212B}ngström", "a\u{30A}NGSTRÖM"),
            ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"),
            ("ꮳꮃꭹ", "ᏣᎳᎩ"),
            ("ΐ", "\u{1FD3}"),
            ("ŉ", "ʼn"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
            assert_eq!(fold(&fold(one)), fold(one), "{one}");
        }
        // A Turkish dotless i is a separate letter.
        assert_ne!(fold("ısı"), fold("isi"));
    }

    #[test]
    fn names() {
        assert_eq!(name("name", "  Tea \u{1F375} ", 80).unwrap(), "Tea \u{1F375}");
        assert_eq!(name("name", &"é".repeat(80), 80).unwrap().chars().count(), 80);
        for bad in ["", " \t", "\u{3000}", "a\0b", "a\nb", "\u{200B}", "\u{202E}moor", &"é".repeat(81)] {
            assert_eq!(name("name", bad, 80).unwrap_err().fields[0].field, "name", "{bad:?}");
        }
    }

    #[test]
    fn descriptions() {
        for good in ["", "Tea\n\tand biscuits ", "हिन्दी"] {
            assert_eq!(description("description", good, 80).unwrap(), good);
        }
        for bad in [" ", "\u{FEFF}", "a\0b", "a\u{202E}b", &"é".repeat(81)] {
            assert_eq!(description("description", bad, 80).unwrap_err().fields[0].field, "description", "{bad:?}");
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
