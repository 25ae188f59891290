//! Parses JSON payloads from clients. Errors use the field names and type names of the public contract.

use std::fmt;

use confab_common::{Code, Error};
use serde::Deserializer;
use serde::de::{self, DeserializeOwned, Unexpected, Visitor};
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

/// Reads a whole number from 0 on, however large: beyond the largest integer, it stands for that.
///
/// # Errors
/// For anything else.
pub fn any_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Number;

    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
            text.write_str("u64")
        }

        fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(|_| E::invalid_type(Unexpected::Signed(number), &self))
        }

        // JSON numbers beyond the largest integer are read as floating-point numbers.
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
            let is_whole = number >= 0.0 && number.fract() == 0.0;
            if is_whole { Ok(number as u64) } else { Err(E::invalid_type(Unexpected::Float(number), &self)) }
        }
    }

    deserializer.deserialize_any(Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Mark {
        #[serde(deserialize_with = "any_number")]
        seq: u64,
    }

    #[test]
    fn a_number_may_be_larger_than_any_integer() {
        let seq = |text: &str| read_text::<Mark>(&format!(r#"{{"seq":{text}}}"#), "{ seq }").map(|mark| mark.seq);
        assert_eq!((seq("0").unwrap(), seq("7").unwrap(), seq("3.0").unwrap()), (0, 7, 3));
        assert_eq!((seq("18446744073709551615").unwrap(), seq("1e30").unwrap()), (u64::MAX, u64::MAX));
        for invalid in ["-1", "-1e30", "1.5", "\"1\"", "null"] {
            assert_eq!(seq(invalid).unwrap_err().detail, "seq must be a whole number", "{invalid}");
        }
    }
}
