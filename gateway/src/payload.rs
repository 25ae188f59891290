//! Reads JSON payloads from clients and describes their faults in the words of the contract.

use confab_common::{Code, Error};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object out of parsed JSON; unknown fields are ignored.
///
/// # Errors
/// `invalid_request` that names the first faulty field with its path.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.inner().to_string());
        if let Some(name) = cause.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return Error::field(name, "must be given");
        }
        match cause.split_once(", expected ") {
            Some((_, expected)) => Error::field(&path, format!("must be {}", of_json(expected))),
            None => Error::field(&path, cause),
        }
    })
}

/// Translates the name of a Rust type to its JSON name.
fn of_json(expected: &str) -> &str {
    match expected {
        "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "an array",
        other => other,
    }
}

/// The fault in the text of a payload that is not a valid `T`.
pub fn fault<T: DeserializeOwned>(text: &str, shape: &str) -> Error {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => read::<T>(value).err(),
        _ => None,
    }
    .unwrap_or_else(|| self::shape(shape))
}

/// The error for a payload that is not an object of this shape at all.
pub fn shape(shape: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("the payload must be {shape}"))
}

/// Reads the text of an event's payload.
///
/// # Errors
/// `invalid_request` that names the faulty field or, where there is none, says what shape is expected.
pub fn read_text<T: DeserializeOwned>(argument: &str, shape: &str) -> Result<T, Error> {
    // serde would read an array as the fields in order.
    let read = argument.starts_with('{').then(|| serde_json::from_str(argument).ok()).flatten();
    read.ok_or_else(|| fault::<T>(argument, shape))
}

/// A room's id alone, or an object with more fields.
pub enum RoomOr<T> {
    /// The id.
    Id(String),
    /// The object.
    Object(T),
}

/// Reads a payload of either form.
///
/// # Errors
/// As [`read_text`].
pub fn read_room<T: DeserializeOwned>(argument: &str, shape: &str) -> Result<RoomOr<T>, Error> {
    match argument.starts_with('"') {
        true => serde_json::from_str(argument).map(RoomOr::Id).map_err(|_| self::shape(shape)),
        false => read_text(argument, shape).map(RoomOr::Object),
    }
}
