//! Encoded packets for clients. <https://github.com/socketio/engine.io-protocol>,
//! <https://github.com/socketio/socket.io-protocol>, RFC 6455 section 5.2

use std::borrow::Cow;
use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

/// Bytes that a frame occupies in addition to its content: its queue entry and its share of an allocation.
const FRAME_OVERHEAD: usize = 128;
/// The first byte of a WebSocket frame consists of FIN and the opcode (RFC 6455 section 5.2).
const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// Largest encoding buffer that a thread keeps, in bytes.
const MAX_SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An Engine.IO packet for clients. It is encoded once; all recipients and clones share the same bytes.
/// <https://github.com/socketio/engine.io-protocol#packet-encoding>
#[derive(Debug, Clone)]
pub struct Frame {
    /// A complete WebSocket frame (RFC 6455 section 5.2; servers do not mask), or several after [`join`](Self::join).
    bytes: Bytes,
    header: u8,
    answer: bool,
    binary: bool,
}

impl Frame {
    /// Encloses the Engine.IO packet that `write` appends to the given buffer in a text frame.
    fn build(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::build_as(TEXT, write)
    }

    fn build_as(opcode: u8, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        const MAX_HEADER: usize = 10;
        SCRATCH.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.extend_from_slice(&[0; MAX_HEADER]);
            write(buffer);
            let length = buffer.len() - MAX_HEADER;
            let header = match length {
                0..126 => 2,
                126..65_536 => 4,
                _ => 10,
            };
            let start = MAX_HEADER - header;
            buffer[start] = FIN | opcode;
            match header {
                2 => buffer[start + 1] = length as u8,
                4 => {
                    buffer[start + 1] = 126;
                    buffer[start + 2..MAX_HEADER].copy_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    buffer[start + 1] = 127;
                    buffer[start + 2..MAX_HEADER].copy_from_slice(&(length as u64).to_be_bytes());
                }
            }
            // Allocated without spare capacity, because the frame may stay in memory until slow clients read it.
            let bytes = Bytes::copy_from_slice(&buffer[start..]);
            buffer.shrink_to(MAX_SCRATCH);
            Self { bytes, header: header as u8, answer: false, binary: opcode == BINARY }
        })
    }

    /// Encodes an Engine.IO packet that consists of this text, such as a ping (`2`).
    pub fn engine(packet: &str) -> Self {
        Self::build(|buffer| buffer.extend_from_slice(packet.as_bytes()))
    }

    /// Takes bytes that are a complete WebSocket frame (RFC 6455 section 5.2). Such a frame must not be sent by
    /// polling.
    pub fn raw(frame: Vec<u8>) -> Self {
        Self { bytes: frame.into(), header: 0, answer: false, binary: false }
    }

    /// Encodes the first packet of a session. <https://github.com/socketio/engine.io-protocol#handshake>
    pub fn open(open: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.push(b'0');
            json(buffer, open);
        })
    }

    /// Encodes the answer to CONNECT, with a `pid` for a client that can be recovered.
    /// <https://socket.io/docs/v4/connection-state-recovery>
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

    /// Encodes the rejection of CONNECT: the packet CONNECT_ERROR.
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

    /// Encodes an event with one argument.
    pub fn event(name: &str, argument: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.extend_from_slice(b"42[");
            json(buffer, name);
            buffer.push(b',');
            json(buffer, argument);
            buffer.push(b']');
        })
    }

    /// Encodes an event with attachments (at most 10). The argument contains a placeholder
    /// (`{"_placeholder":true,"num":0}`) for each attachment. All returned frames must be queued together.
    pub fn event_with(name: &str, argument: &impl Serialize, attachments: &[Bytes]) -> Vec<Self> {
        let event = Self::build(|buffer| {
            write_ascii(buffer, &format!("45{}-[", attachments.len()));
            json(buffer, name);
            buffer.push(b',');
            json(buffer, argument);
            buffer.push(b']');
        });
        Self::followed_by(event, attachments)
    }

    /// Encodes the acknowledgement of a client's event with attachments (at most 10), as
    /// [`event_with`](Self::event_with) does for an event.
    pub fn ack_with(id: u64, argument: &impl Serialize, attachments: &[Bytes]) -> Vec<Self> {
        let ack = Self::build(|buffer| {
            write_ascii(buffer, &format!("46{}-{id}[", attachments.len()));
            json(buffer, argument);
            buffer.push(b']');
        });
        Self::followed_by(ack, attachments)
    }

    fn followed_by(packet: Self, attachments: &[Bytes]) -> Vec<Self> {
        let attachment = |data: &Bytes| Self::build_as(BINARY, |buffer| buffer.extend_from_slice(data));
        std::iter::once(packet).chain(attachments.iter().map(attachment)).collect()
    }

    /// Encodes the acknowledgement of a client's event.
    pub fn ack(id: u64, argument: &impl Serialize) -> Self {
        Self::build(|buffer| {
            buffer.extend_from_slice(b"43");
            buffer.extend_from_slice(id.to_string().as_bytes());
            buffer.push(b'[');
            json(buffer, argument);
            buffer.push(b']');
        })
    }

    /// Returns a copy of the event with one more argument: a string, which must need no escapes in JSON.
    pub fn with_last_argument(&self, text: &str) -> Self {
        let event = self.packet();
        Self::build(|buffer| {
            buffer.extend_from_slice(event.strip_suffix(b"]").unwrap_or(event));
            for part in [",\"", text, "\"]"] {
                buffer.extend_from_slice(part.as_bytes());
            }
        })
    }

    /// Joins several frames into one, for WebSockets only: all recipients share one allocation, and each outbox has one
    /// entry.
    pub fn join(frames: &[Self]) -> Self {
        match frames {
            [frame] => frame.clone(),
            _ => Self::raw(frames.iter().map(|frame| &*frame.bytes).collect::<Vec<_>>().concat()),
        }
    }

    /// Returns the frame marked as an answer to a request of the client. Answers have their own bound in the
    /// [`Outbox`](crate::outbox::Outbox).
    pub fn as_answer(&self) -> Self {
        Self { answer: true, ..self.clone() }
    }

    /// Whether the frame answers a request of the client.
    pub fn is_answer(&self) -> bool {
        self.answer
    }

    /// The bytes for a WebSocket, with the frame header.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory that the frame occupies in an outbox, in bytes: its length and 128 bytes.
    pub fn cost(&self) -> usize {
        self.bytes.len() + FRAME_OVERHEAD
    }

    /// The packet without the header of the WebSocket frame.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[self.header.into()..]
    }

    /// The packet for polling, where binary data is base64 (RFC 4648 section 4) after a `b`.
    pub fn polling(&self) -> Cow<'_, [u8]> {
        if self.binary {
            return format!("b{}", STANDARD.encode(self.packet())).into_bytes().into();
        }
        self.packet().into()
    }
}

fn write_ascii(buffer: &mut Vec<u8>, text: &str) {
    buffer.extend_from_slice(text.as_bytes());
}

fn json<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    // The arguments of applications always serialise, and writing to a Vec cannot fail.
    let written = serde_json::to_writer(buffer, value);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_follow_their_packet() {
        let data = [Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])];
        let polled = |frames: Vec<Frame>| {
            frames.iter().map(|frame| String::from_utf8(frame.polling().to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(polled(Frame::event_with("e", &"x", &data)), [r#"452-["e","x"]"#, "bAQI=", "bAw=="]);
        assert_eq!(polled(Frame::ack_with(7, &"x", &data[..1])), [r#"461-7["x"]"#, "bAQI="]);
        assert_eq!(Frame::ack_with(7, &"x", &data)[2].websocket(), [0x82, 1, 3]);
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
