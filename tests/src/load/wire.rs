//! The parts of RFC 6455, Engine.IO 4 and Socket.IO 5 that a WebSocket-only client needs.

use std::ops::Range;

use anyhow::bail;

/// A constant is as good as any key here, because no intermediary interprets the bytes.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x1f, 0x96];

/// A packet from a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The Engine.IO session is open: CONNECT may follow.
    Open,
    /// CONNECT was accepted.
    Connected,
    /// A Socket.IO event: the JSON array.
    Event(&'a [u8]),
    /// The acknowledgement with this number: the JSON array.
    Ack(u64, &'a [u8]),
    /// The server requests a pong.
    Ping,
    /// The server ends the session, or rejects CONNECT.
    End(&'a [u8]),
    /// Any other packet.
    Other,
}

impl<'a> Packet<'a> {
    /// Parses an Engine.IO packet.
    pub fn parse(text: &'a [u8]) -> Self {
        match text {
            [b'0', ..] => Self::Open,
            [b'2', ..] => Self::Ping,
            [b'4', b'0', ..] => Self::Connected,
            [b'4', b'2', data @ ..] => Self::Event(data),
            [b'4', b'3', rest @ ..] => {
                let (number, digits) = leading_number(rest);
                Self::Ack(number, &rest[digits..])
            }
            [b'1', ..] | [b'4', b'1' | b'4', ..] => Self::End(text),
            _ => Self::Other,
        }
    }
}

/// A frame from a server: its opcode, the range of its payload, and the start of the next frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    pub payload: Range<usize>,
}

impl Frame {
    /// Parses the frame that begins at `at`; `None` while it is incomplete.
    ///
    /// # Errors
    /// When it is fragmented, compressed or masked: not negotiated, or forbidden for a server.
    pub fn parse(bytes: &[u8], at: usize) -> anyhow::Result<Option<Self>> {
        let [first, second, rest @ ..] = &bytes[at..] else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            bail!("the frame is fragmented, compressed or masked");
        }
        let (header, length) = match (second, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize),
            (126 | 127, _) => return Ok(None),
            (length, _) => (2, usize::from(*length)),
        };
        let payload = at + header..at + header + length;
        Ok((payload.end <= bytes.len()).then_some(Self { opcode: first & 0x0f, payload }))
    }
}

/// Appends a client's frame.
pub fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Returns the request to upgrade a connection to a WebSocket.
pub fn upgrade(host: &str) -> String {
    format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZCBnZW5lcmF0b3IhIQ==\r\n\r\n"
    )
}

/// Parses the number at the beginning of a text. Returns the number and its length in digits.
fn leading_number(text: &[u8]) -> (u64, usize) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number =
        text[..digits].iter().fold(0u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    (number, digits)
}

/// Finds a text in similarly structured texts: it first looks at the position of the last match.
#[derive(Debug, Default)]
pub struct Finder {
    last: usize,
}

impl Finder {
    /// Returns the text after `needle`.
    pub fn after<'a>(&mut self, text: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
        if !text.get(self.last..).is_some_and(|rest| rest.starts_with(needle)) {
            self.last = text.windows(needle.len()).position(|window| window == needle)?;
        }
        Some(&text[self.last + needle.len()..])
    }

    /// Returns the number after `needle`.
    pub fn number(&mut self, text: &[u8], needle: &[u8]) -> Option<u64> {
        let rest = self.after(text, needle)?;
        let (number, digits) = leading_number(rest);
        (digits > 0).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        for (text, packet) in [
            ("0{}", Packet::Open),
            ("2", Packet::Ping),
            ("40{\"sid\":\"x\"}", Packet::Connected),
            ("42[\"message\"]", Packet::Event(b"[\"message\"]")),
            ("4312[{}]", Packet::Ack(12, b"[{}]")),
            ("44{}", Packet::End(b"44{}")),
            ("41", Packet::End(b"41")),
            ("6", Packet::Other),
            ("", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text.as_bytes()), packet, "{text}");
        }
    }

    #[test]
    fn frames_of_every_length_complete_or_partial() {
        for length in [0usize, 125, 126, 65535, 65536] {
            let mut bytes = vec![0xff; 3];
            push_frame(&mut bytes, 1, &vec![b'x'; length]);
            // As a server would send it: unmasked.
            let mask = bytes.len() - length - 4;
            bytes.drain(mask..mask + 4);
            bytes[4] &= 0x7f;
            bytes.truncate(mask);
            bytes.extend(vec![b'x'; length]);
            let frame = Frame { opcode: 1, payload: mask..mask + length };
            assert_eq!(Frame::parse(&bytes, 3).unwrap(), Some(frame), "{length}");
            for cut in 3..mask {
                assert_eq!(Frame::parse(&bytes[..cut], 3).unwrap(), None, "{length} at {cut}");
            }
        }
        for bad in [[0x01, 0], [0xc1, 0], [0x81, 0x80]] {
            assert!(Frame::parse(&bad, 0).is_err());
        }
    }

    #[test]
    fn finds_again_and_elsewhere() {
        let mut finder = Finder::default();
        for (text, number) in [
            ("{\"seq\":7,", Some(7)),
            ("{\"seq\":123}", Some(123)),
            ("{\"type\":1,\"seq\":9", Some(9)),
            ("{}", None),
            ("\"seq\":x", None),
        ] {
            assert_eq!(finder.number(text.as_bytes(), b"\"seq\":"), number, "{text}");
        }
    }
}
