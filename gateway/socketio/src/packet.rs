//! The parser of Socket.IO packets (protocol 5): the text that an Engine.IO packet `4` (protocol 4) contains.
//! <https://github.com/socketio/socket.io-protocol>, <https://github.com/socketio/engine.io-protocol>

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum number of binary attachments of one packet.
const MAX_ATTACHMENTS: usize = 10;

/// The error for a packet that no conforming client sends, with the reason. The server closes the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The type of a packet. <https://github.com/socketio/socket.io-protocol#packet-types>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CONNECT: the client enters a namespace.
    Connect,
    /// DISCONNECT: the client leaves a namespace.
    Disconnect,
    /// EVENT or BINARY_EVENT.
    Event,
    /// ACK or BINARY_ACK: the acknowledgement of a server's event.
    Ack,
}

/// A parsed packet that borrows from its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The type.
    pub kind: Kind,
    /// The number of binary attachments that follow, at most 10.
    pub attachments: usize,
    /// The namespace; `/` when the packet names none.
    pub namespace: &'a str,
    /// The id of the acknowledgement, if the sender requests one.
    pub id: Option<u64>,
    /// The payload: JSON, or empty. [`EventPayload::parse`] reads the payload of an event.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Parses the text of a Socket.IO packet. <https://github.com/socketio/socket.io-protocol#packet-encoding>
    ///
    /// # Errors
    /// [`Malformed`] for a packet that clients may not send, or one with more than 10 attachments.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (kind, binary) = match text.as_bytes().first() {
            Some(b'0') => (Kind::Connect, false),
            Some(b'1') => (Kind::Disconnect, false),
            Some(b'2') => (Kind::Event, false),
            Some(b'3') => (Kind::Ack, false),
            Some(b'5') => (Kind::Event, true),
            Some(b'6') => (Kind::Ack, true),
            _ => return Err(Malformed("unknown type")),
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if binary {
            let (digits, after) = split_digits(rest);
            attachments = digits.parse().map_err(|_| Malformed("attachment count"))?;
            rest = after.strip_prefix('-').ok_or(Malformed("attachment count"))?;
            if attachments > MAX_ATTACHMENTS {
                return Err(Malformed("too many attachments"));
            }
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let (digits, data) = split_digits(rest);
        let id = match digits {
            "" => None,
            digits => Some(digits.parse().map_err(|_| Malformed("acknowledgement id"))?),
        };
        Ok(Self { kind, attachments, namespace, id, data })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// The name and the first argument of an event. The parser ignores further arguments.
pub struct EventPayload<'a> {
    /// The name; empty when the first element is not a string.
    pub name: Cow<'a, str>,
    /// The first argument as JSON text.
    pub argument: Option<&'a RawValue>,
}

impl<'a> EventPayload<'a> {
    /// Parses the JSON array of an event.
    ///
    /// # Errors
    /// [`Malformed`] when the text is not a JSON array with at least one element.
    pub fn parse(data: &'a str) -> Result<Self, Malformed> {
        serde_json::from_str(data).map_err(|_| Malformed("event data"))
    }
}

impl<'de> Deserialize<'de> for EventPayload<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arguments;
        impl<'de> Visitor<'de> for Arguments {
            type Value = EventPayload<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let name: &RawValue =
                    elements.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let argument = elements.next_element()?;
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(EventPayload { name: read_name(name.get()), argument })
            }
        }
        deserializer.deserialize_seq(Arguments)
    }
}

/// The name of an event; empty when it is not a string, such as a number or half a surrogate pair. No event has an
/// empty name.
fn read_name(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => text.into(),
        _ => serde_json::from_str::<String>(json).unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: Kind, attachments: usize, namespace: &str, id: Option<u64>, data: &str) -> Packet<'static> {
        // Only literals are leaked.
        Packet {
            kind,
            attachments,
            namespace: Box::leak(namespace.to_owned().into_boxed_str()),
            id,
            data: Box::leak(data.to_owned().into_boxed_str()),
        }
    }

    #[test]
    fn packets_are_parsed() {
        let cases = [
            ("0", packet(Kind::Connect, 0, "/", None, "")),
            (r#"0{"token":"t"}"#, packet(Kind::Connect, 0, "/", None, r#"{"token":"t"}"#)),
            ("0/admin,{}", packet(Kind::Connect, 0, "/admin", None, "{}")),
            ("0/admin", packet(Kind::Connect, 0, "/admin", None, "")),
            ("1", packet(Kind::Disconnect, 0, "/", None, "")),
            (r#"2["a"]"#, packet(Kind::Event, 0, "/", None, r#"["a"]"#)),
            (r#"212["a"]"#, packet(Kind::Event, 0, "/", Some(12), r#"["a"]"#)),
            (r#"51-3["a",{}]"#, packet(Kind::Event, 1, "/", Some(3), r#"["a",{}]"#)),
            (r#"2/x,7["a"]"#, packet(Kind::Event, 0, "/x", Some(7), r#"["a"]"#)),
        ];
        for (text, expected) in cases {
            assert_eq!(Packet::parse(text), Ok(expected), "{text}");
        }
        for bad in ["", "4{}", "7", "x", "5[]", "5-[]", "51000000-[]", "511-[]", "299999999999999999999999[]", "é"] {
            assert!(Packet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn event_data_is_parsed() {
        let data = EventPayload::parse(r#"["message",{"a":[1,2]},3]"#).unwrap();
        assert_eq!((&*data.name, data.argument.unwrap().get()), ("message", r#"{"a":[1,2]}"#));
        assert!(EventPayload::parse(r#"["a\"b"]"#).unwrap().argument.is_none());
        let deep = format!(r#"["a",{}"#, "[".repeat(100_000));
        for bad in ["", "{}", "[]", r#"["a"#, &deep] {
            assert!(EventPayload::parse(bad).is_err());
        }
        for nameless in
            [r#"[7,{}]"#, "[null]", r#"[{"toString":"foo"}]"#, r#"["\ud83d",1]"#, r#"["\udca9"]"#, r#"[["message"]]"#]
        {
            assert_eq!(EventPayload::parse(nameless).unwrap().name, "", "{nameless}");
        }
        assert_eq!(EventPayload::parse(r#"["m\u0065ssage"]"#).unwrap().name, "message");
    }
}
