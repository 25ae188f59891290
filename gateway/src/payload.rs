//! Parses JSON payloads from clients. Errors use the field names and type names of the public contract.

use confab_common::{Code, Error};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deserialises an object from parsed JSON; unknown fields are ignored.
///
/// # Errors
/// `invalid_request` with the path of the first invalid field.
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

/// Translates serde's name of a Rust type to the name of the JSON type.
fn of_json(expected: &str) -> &str {
    match expected {
        "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "an array",
        other => other,
    }
}

/// The error for a payload that does not parse as a `T`.
pub fn fault<T: DeserializeOwned>(text: &str, shape: &str) -> Error {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => read::<T>(value).err(),
        _ => None,
    }
    .unwrap_or_else(|| self::shape(shape))
}

/// The error for a payload that is not an object of this shape.
pub fn shape(shape: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("the payload must be {shape}"))
}

/// Parses the payload of an event.
///
/// # Errors
/// `invalid_request` with the name of the invalid field, or with the expected shape when no field is at fault.
pub fn read_text<T: DeserializeOwned>(argument: &str, shape: &str) -> Result<T, Error> {
    // serde would accept an array as the fields in order.
    let read = argument.starts_with('{').then(|| serde_json::from_str(argument).ok()).flatten();
    read.ok_or_else(|| fault::<T>(argument, shape))
}

/// A room id, or an object with more fields.
pub enum RoomOr<T> {
    Id(String),
    Object(T),
}

/// Parses a payload of either form.
///
/// # Errors
/// As [`read_text`].
pub fn read_room<T: DeserializeOwned>(argument: &str, shape: &str) -> Result<RoomOr<T>, Error> {
    if argument.starts_with('"') {
        serde_json::from_str(argument).map(RoomOr::Id).map_err(|_| self::shape(shape))
    } else {
        read_text(argument, shape).map(RoomOr::Object)
    }
}
