//! The parts of a JSON Web Token in compact form (RFC 7515, RFC 7519). Nothing here is verified.

use std::borrow::Cow;
use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::algorithm::Algorithm;

/// Why a token is rejected, for the log of the operator.
pub type Reason = &'static str;

/// Longest token, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// The types of tokens for callers, in lower case. An issuer signs other tokens with the same keys, such as logout
/// tokens, and gives them other types (RFC 8725, section 3.11).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// The parts of a token, not decoded.
pub struct Parts<'a> {
    /// What the signature covers: head and payload.
    pub signed: &'a [u8],
    head: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    pub fn split(token: &'a str) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN {
            return Err("it has more than 8 KiB");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it is not a JSON Web Token")?;
        let (head, payload) = signed.split_once('.').ok_or("it is not a JSON Web Token")?;
        Ok(Self { signed: signed.as_bytes(), head, payload, signature })
    }

    pub fn head(&self) -> Result<Vec<u8>, Reason> {
        decode(self.head)
    }

    pub fn payload(&self) -> Result<Vec<u8>, Reason> {
        decode(self.payload)
    }

    pub fn signature(&self) -> Result<Vec<u8>, Reason> {
        decode(self.signature)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part is not base64url")
}

/// A JSON object, whose values are parsed when they are needed.
pub struct Object<'a>(Vec<(Text<'a>, &'a RawValue)>);

/// A text that is only copied if it contains escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Object<'a> {
    pub fn parse(json: &'a [u8]) -> Result<Self, Reason> {
        serde_json::from_slice(json).map_err(|_| "a part is not a JSON object")
    }

    /// Returns the member with this name. Two members with one name are an error: other parsers may use the other one.
    pub fn get(&self, name: &str) -> Result<Option<&'a str>, Reason> {
        let mut found = self.0.iter().filter(|(Text(own), _)| own == name).map(|(_, value)| value.get());
        match (found.next(), found.next()) {
            (_, Some(_)) => Err("it contains a member twice"),
            (value, None) => Ok(value),
        }
    }

    /// Returns the member with this name, which must be a text.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Reason> {
        let parse = |json| serde_json::from_str::<Text<'_>>(json).map_err(|_| "a member is not a text");
        Ok(self.get(name)?.map(parse).transpose()?.map(|Text(text)| text))
    }

    /// Returns the member with this name, which must be a whole number of seconds.
    pub fn seconds(&self, name: &str) -> Result<Option<i64>, Reason> {
        let parse = |json| serde_json::from_str::<u64>(json).ok().and_then(|seconds| i64::try_from(seconds).ok());
        self.get(name)?.map(|json| parse(json).ok_or("a time is not a whole number of seconds")).transpose()
    }

    /// Returns whether the member with this name, a text or a list of texts, contains one of these texts.
    pub fn names_one_of(&self, name: &str, texts: &[String]) -> Result<bool, Reason> {
        let wrong = "a member is neither a text nor a list of texts";
        let is_one = |Text(text): &Text<'_>| texts.iter().any(|known| known == text);
        match self.get(name)? {
            None => Ok(false),
            Some(json) if json.starts_with('[') => {
                Ok(serde_json::from_str::<Vec<Text<'_>>>(json).map_err(|_| wrong)?.iter().any(is_one))
            }
            Some(json) => Ok(is_one(&serde_json::from_str(json).map_err(|_| wrong)?)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The head of a token. The members that bring their own keys (`jwk`, `jku`, `x5c`, `x5u`) are never read.
pub struct Head<'a> {
    pub algorithm: Algorithm,
    pub key_id: Option<Cow<'a, str>>,
}

impl<'a> Head<'a> {
    pub fn check(object: &Object<'a>, algorithms: &[Algorithm]) -> Result<Self, Reason> {
        if object.get("crit")?.is_some() {
            return Err("its head has critical extensions");
        }
        if object.text("typ")?.is_some_and(|name| !is_for_callers(&name)) {
            return Err("its type is neither JWT nor at+jwt");
        }
        let name = object.text("alg")?.ok_or("its head names no algorithm")?;
        let algorithm = algorithms.iter().copied().find(|algorithm| algorithm.name() == name);
        let algorithm = algorithm.ok_or("its algorithm is not one of the issuer's `algorithms`")?;
        Ok(Self { algorithm, key_id: object.text("kid")? })
    }
}

fn is_for_callers(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TYPES.contains(&name.strip_prefix("application/").unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Result<Object<'_>, Reason> {
        Object::parse(json.as_bytes())
    }

    #[test]
    fn members_are_found_by_their_decoded_names() {
        let object = object(r#" { "a" : "x\u0041" , "\u0062":"", "c": {"a": [1]}, "n":null } "#).unwrap();
        assert_eq!(object.text("a").unwrap().as_deref(), Some("xA"));
        assert_eq!(object.text("b").unwrap().as_deref(), Some(""));
        assert_eq!(object.get("c").unwrap(), Some(r#"{"a": [1]}"#));
        assert_eq!(object.get("d").unwrap(), None);
        assert!(object.text("c").is_err() && object.text("n").is_err());
    }

    #[test]
    fn ambiguous_and_malformed_objects_are_rejected() {
        assert!(object(r#"{"a":1,"\u0061":2,"b":3}"#).unwrap().get("a").is_err());
        let deep = "[".repeat(8000);
        for bad in ["", "{", "[]", "1", "{}x", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":01}"#, "{1:2}", &deep] {
            assert!(object(bad).is_err(), "{bad:.20}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn seconds_are_whole_numbers() {
        for (json, seconds) in
            [("0", Some(0)), ("1700000000", Some(1_700_000_000)), ("9223372036854775807", Some(i64::MAX))]
        {
            assert_eq!(object(&format!(r#"{{"t":{json}}}"#)).unwrap().seconds("t"), Ok(seconds));
        }
        for bad in ["-1", "-0", "1.0", "1e3", "1e20", "\"1\"", "null", "[1]", "true", "9223372036854775808"] {
            assert!(object(&format!(r#"{{"t":{bad}}}"#)).unwrap().seconds("t").is_err(), "{bad}");
        }
    }

    #[test]
    fn audiences_are_texts_or_lists() {
        let ours = ["chat".to_owned(), "other".to_owned()];
        let names = |json: &str| object(&format!(r#"{{"aud":{json}}}"#)).unwrap().names_one_of("aud", &ours);
        for good in [r#""chat""#, r#"["x","chat"]"#, r#""\u0063hat""#] {
            assert_eq!(names(good), Ok(true), "{good}");
        }
        for foreign in [r#""Chat""#, "[]", r#"["x"]"#, r#""chat,other""#] {
            assert_eq!(names(foreign), Ok(false), "{foreign}");
        }
        for bad in ["1", "null", r#"["chat",1]"#, r#"{"chat":1}"#, r#"[["chat"]]"#] {
            assert!(names(bad).is_err(), "{bad}");
        }
        assert_eq!(object("{}").unwrap().names_one_of("aud", &ours), Ok(false));
    }

    #[test]
    fn types_of_other_tokens_are_rejected() {
        for good in ["JWT", "jwt", "at+jwt", "application/at+JWT"] {
            assert!(is_for_callers(good), "{good}");
        }
        for bad in ["", "logout+jwt", "dpop+jwt", "JOSE", "application/"] {
            assert!(!is_for_callers(bad), "{bad}");
        }
    }
}
