//! Validates and compares names and texts that users type.

mod printable;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

use crate::{Code, Error, Result};
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

/// Validates the name of a reaction, for example an emoji: 1 to `max` bytes in NFC without control characters, neither
/// `.` nor `..`, which are no segments of a path.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn reaction(field: &str, value: &str, max: usize) -> Result<()> {
    let detail = match value {
        "" => "must not be empty".to_owned(),
        "." | ".." => "must be neither . nor ..".to_owned(),
        _ if value.len() > max => format!("must be at most {max} bytes"),
        _ if value.chars().any(char::is_control) => "must have no control characters".to_owned(),
        _ if !ComposingNormalizerBorrowed::new_nfc().is_normalized(value) => "must be in NFC".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::field(field, detail))
}

/// The deepest nesting of an app's data. Parsers of JSON have limits of their own, often 100 or more levels, and answers
/// nest the data in some more.
const MAX_LEVELS: u32 = 64;

/// Validates data of an app: a JSON object of at most `max` bytes and 64 levels. It is kept as it was written.
///
/// # Errors
/// `too_large` for a longer text; `invalid_request` for `field`.
pub fn json_object(field: &str, value: &str, max: usize) -> Result<()> {
    if value.len() > max {
        return Err(Error::new(Code::TooLarge, format!("{field} must be at most {max} bytes")));
    }
    if !serde_json::from_str(value).is_ok_and(|json: serde_json::Value| json.is_object()) {
        return Err(Error::field(field, "must be an object"));
    }
    if levels(value) > MAX_LEVELS {
        return Err(Error::field(field, format!("must be nested at most {MAX_LEVELS} levels deep")));
    }
    Ok(())
}

/// Returns how deep the objects and arrays of a valid JSON text are nested.
fn levels(json: &str) -> u32 {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_u32, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    deepest
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
mod tests;
