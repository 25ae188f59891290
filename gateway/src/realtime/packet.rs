//! Socket.IO packets (protocol 5) inside Engine.IO messages (protocol 4), text part.
//! <https://github.com/socketio/socket.io-protocol>, <https://github.com/socketio/engine.io-protocol>

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most binary attachments of one packet.
const MAX_ATTACHMENTS: usize = 10;

/// A packet that no conforming client sends. The socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The type of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Enter a namespace.
    Connect,
    /// Leave a namespace.
    Disconnect,
    /// An event, perhaps with binary attachments that follow.
    Event,
    /// An acknowledgement of a server event.
    Ack,
}

/// A parsed packet that borrows from its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What for.
    pub kind: Kind,
    /// How many binary frames follow.
    pub attachments: usize,
    /// `/` unless the packet names another.
    pub namespace: &'a str,
    /// The id under which the sender expects the acknowledgement.
    pub id: Option<u64>,
    /// JSON, or empty.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Reads the text of a Socket.IO packet.
    ///
    /// # Errors
    /// When clients may not send such a packet.
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

/// An event's name and first argument; any others are ignored.
pub struct EventData<'a> {
    /// The event's name.
    pub name: Cow<'a, str>,
    /// The first argument as JSON text.
    pub argument: Option<&'a RawValue>,
}

impl<'a> EventData<'a> {
    /// Reads the JSON array of an event.
    ///
    /// # Errors
    /// When the text is not an array with at least one element.
    pub fn parse(data: &'a str) -> Result<Self, Malformed> {
        serde_json::from_str(data).map_err(|_| Malformed("event data"))
    }
}

impl<'de> Deserialize<'de> for EventData<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arguments;
        impl<'de> Visitor<'de> for Arguments {
            type Value = EventData<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let name: &RawValue = seq.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let argument = seq.next_element()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(EventData { name: read_name(name.get()), argument })
            }
        }
        deserializer.deserialize_seq(Arguments)
    }
}

/// The name of an event; empty when it is no text, such as a number or half a surrogate pair: no event has that name.
fn read_name(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => text.into(),
        _ => serde_json::from_str::<String>(json).unwrap_or_default().into(),
    }
}

/// What a frame costs besides its bytes: its place in a queue, its share of an allocation.
const FRAME_OVERHEAD: usize = 128;
/// Most bytes of encoding buffer that a thread keeps.
const MAX_SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An Engine.IO packet on its way to clients: encoded once, shared by all its receivers.
#[derive(Debug, Clone)]
pub struct Frame {
    /// A whole WebSocket text frame (RFC 6455 section 5.2; servers do not mask).
    bytes: Bytes,
    header: u8,
    answer: bool,
}

impl Frame {
    /// The frame around an Engine.IO packet that `write` appends to the given buffer.
    fn build(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        const ROOM: usize = 10;
        SCRATCH.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.extend_from_slice(&[0; ROOM]);
            write(buffer);
            let length = buffer.len() - ROOM;
            let header = match length {
                0..126 => 2,
                126..65_536 => 4,
                _ => 10,
            };
            let start = ROOM - header;
            buffer[start] = 0x81; // FIN, text
            match header {
                2 => buffer[start + 1] = length as u8,
                4 => {
                    buffer[start + 1] = 126;
                    buffer[start + 2..ROOM].copy_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    buffer[start + 1] = 127;
                    buffer[start + 2..ROOM].copy_from_slice(&(length as u64).to_be_bytes());
                }
            }
            // Allocated exactly: the frame may wait in many outboxes.
            let bytes = Bytes::copy_from_slice(&buffer[start..]);
            buffer.shrink_to(MAX_SCRATCH);
            Self { bytes, header: header as u8, answer: false }
        })
    }

    /// An Engine.IO packet without data or with a short text, such as a ping.
    pub fn engine(packet: &str) -> Self {
        Self::build(|buffer| buffer.extend_from_slice(packet.as_bytes()))
    }

    /// Bytes that are a WebSocket frame already.
    pub fn raw(frame: Vec<u8>) -> Self {
        Self { bytes: frame.into(), header: 0, answer: false }
    }

    /// The first packet of a session.
    pub fn open(open: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.push(b'0');
            json(buffer, open);
        })
    }

    /// The answer to CONNECT; with a `pid` for a client that can be recovered.
    pub fn connected(sid: &str, pid: Option<&str>) -> Self {
        #[derive(Serialize)]
        struct Connected<'a> {
            sid: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<&'a str>,
        }
        Self::build(|buffer| {
            buffer.extend_from_slice(b"40");
            json(buffer, &Connected { sid, pid });
        })
    }

    /// The refusal of CONNECT.
    pub fn connect_error(namespace: &str, error: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.extend_from_slice(b"44");
            if namespace != "/" {
                buffer.extend_from_slice(namespace.as_bytes());
                buffer.push(b',');
            }
            json(buffer, error);
        })
    }

    /// An event with one argument.
    pub fn event(name: &str, argument: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.extend_from_slice(b"42[");
            json(buffer, name);
            buffer.push(b',');
            json(buffer, argument);
            buffer.push(b']');
        })
    }

    /// The acknowledgement of a client's event.
    pub fn ack(id: u64, argument: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.extend_from_slice(b"43");
            buffer.extend_from_slice(id.to_string().as_bytes());
            buffer.push(b'[');
            json(buffer, argument);
            buffer.push(b']');
        })
    }

    /// The event with one more argument, a text that needs no escapes in JSON.
    pub fn with_last_argument(&self, text: &str) -> Self {
        let event = self.packet();
        Self::build(|buffer| {
            buffer.extend_from_slice(event.strip_suffix(b"]").unwrap_or(event));
            for part in [",\"", text, "\"]"] {
                buffer.extend_from_slice(part.as_bytes());
            }
        })
    }

    /// Several frames as one piece, for WebSockets only: receivers of all of them then share one allocation and use one
    /// place in a queue.
    pub fn join(frames: &[Self]) -> Self {
        match frames {
            [frame] => frame.clone(),
            _ => Self::raw(frames.iter().map(|frame| &*frame.bytes).collect::<Vec<_>>().concat()),
        }
    }

    /// The frame, marked as an answer to a request of the client.
    pub fn as_answer(&self) -> Self {
        Self { answer: true, ..self.clone() }
    }

    /// Whether it answers a request of the client.
    pub fn is_answer(&self) -> bool {
        self.answer
    }

    /// The bytes for a WebSocket.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory that it occupies while it waits, in bytes.
    pub fn cost(&self) -> usize {
        self.bytes.len() + FRAME_OVERHEAD
    }

    /// The packet alone, for long-polling.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[self.header.into()..]
    }
}

fn json<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    // Our own types always serialise, and writing to a Vec cannot fail.
    let written = serde_json::to_writer(buffer, value);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: Kind, attachments: usize, namespace: &str, id: Option<u64>, data: &str) -> Packet<'static> {
        // These hold literals only.
        Packet {
            kind,
            attachments,
            namespace: Box::leak(namespace.to_owned().into_boxed_str()),
            id,
            data: Box::leak(data.to_owned().into_boxed_str()),
        }
    }

    #[test]
    fn packets() {
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
    fn event_data() {
        let data = EventData::parse(r#"["message",{"a":[1,2]},3]"#).unwrap();
        assert_eq!((&*data.name, data.argument.unwrap().get()), ("message", r#"{"a":[1,2]}"#));
        assert!(EventData::parse(r#"["a\"b"]"#).unwrap().argument.is_none());
        let deep = format!(r#"["a",{}"#, "[".repeat(100_000));
        for bad in ["", "{}", "[]", r#"["a"#, &deep] {
            assert!(EventData::parse(bad).is_err());
        }
        for nameless in [r#"[7,{}]"#, "[null]", r#"[{"toString":"foo"}]"#, r#"["\ud83d",1]"#, r#"["\udca9"]"#, r#"[["message"]]"#] {
            assert_eq!(EventData::parse(nameless).unwrap().name, "", "{nameless}");
        }
        assert_eq!(EventData::parse(r#"["m\u0065ssage"]"#).unwrap().name, "message");
    }

    #[test]
    fn frames_of_every_length() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let text = "x".repeat(length);
            let frame = Frame::engine(&text);
            assert_eq!(frame.packet(), text.as_bytes());
            assert_eq!(frame.websocket().len(), length + header);
            let mut stream = std::io::Cursor::new(frame.websocket().to_vec());
            let mut client = tungstenite::protocol::WebSocketContext::new(tungstenite::protocol::Role::Client, None);
            assert_eq!(client.read(&mut stream).unwrap().into_text().unwrap().as_str(), text);
        }
        assert_eq!(Frame::event("m", &1).packet(), br#"42["m",1]"#);
        assert_eq!(Frame::event("m", &[1]).with_last_argument("x").packet(), br#"42["m",[1],"x"]"#);
        assert_eq!(Frame::connected("s", None).packet(), br#"40{"sid":"s"}"#);
        assert_eq!(Frame::connected("s", Some("p")).packet(), br#"40{"sid":"s","pid":"p"}"#);
        assert_eq!(Frame::ack(7, &1).packet(), b"437[1]");
        assert_eq!(Frame::connect_error("/x", &1).packet(), b"44/x,1");
    }
}
