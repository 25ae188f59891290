//! What a client sends over a WebSocket, parsed and unmasked by tungstenite. All sockets of a thread share one read
//! buffer, so an idle socket has none (measured: 0.1 to 0.3 µs for a frame of chat's size, the same as other maintained
//! libraries, which all keep some KiB per socket; the read itself costs 5 µs).

use std::cell::RefCell;
use std::io::{self, Read, Write};

use bytes::Bytes;
use confab_common::metrics::LIMITS;
use tokio::net::TcpStream;
use tungstenite::error::{CapacityError, Error as WsError};
use tungstenite::protocol::{Message as Received, Role, WebSocketConfig, WebSocketContext};

use crate::ending::Ending;
use crate::packet::Malformed;

/// Most bytes read at once.
const SCRATCH: usize = 64 * 1024;
/// Bytes that the parser keeps per socket.
const KEPT: usize = 256;
/// A parser that had to hold a larger message is replaced, because it never shrinks its buffer.
const LARGE: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The parser of one connection.
pub struct Decoder {
    codec: WebSocketContext,
    max_packet: usize,
    /// Bytes of an unfinished message: 0 only between two messages.
    beyond: usize,
    largest: usize,
}

impl Decoder {
    /// A parser that begins with the bytes read ahead of the upgrade.
    pub fn new(ahead: Bytes, max_packet: usize) -> Self {
        let beyond = ahead.len();
        let codec = WebSocketContext::from_partially_read(alone(ahead), Role::Server, Some(config(max_packet)));
        Self { codec, max_packet, beyond, largest: 0 }
    }

    /// Accepts messages of up to `max_packet` bytes from now on.
    pub fn allow(&mut self, max_packet: usize) {
        self.max_packet = max_packet;
        self.codec.set_config(|settings| *settings = config(max_packet));
    }

    /// How many bytes of an unfinished message it holds.
    pub fn unfinished(&self) -> usize {
        self.beyond
    }

    /// Reads what has arrived and hands each message to `take`; the protocol's own answers (pongs) are appended to `control`.
    pub fn read(
        &mut self,
        stream: &TcpStream,
        control: &mut Vec<u8>,
        take: impl FnMut(Received) -> Result<(), Malformed>,
    ) -> Result<(), Ending> {
        BUFFER.with_borrow_mut(|buffer| match stream.try_read(buffer) {
            Ok(0) => Err(Ending::ConnectionLost),
            Ok(length) => self.feed(&buffer[..length], control, take),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        })
    }

    /// Parses bytes as if they had been read from the socket.
    pub fn feed(
        &mut self,
        input: &[u8],
        control: &mut Vec<u8>,
        mut take: impl FnMut(Received) -> Result<(), Malformed>,
    ) -> Result<(), Ending> {
        let length = input.len();
        self.beyond += length;
        let mut feed = Feed { input, output: control };
        let mut open = true;
        loop {
            match self.codec.read(&mut feed) {
                Ok(received) => {
                    self.beyond = self.beyond.saturating_sub(frame_length(received.len()));
                    if matches!(received, Received::Text(_) | Received::Binary(_)) {
                        // Its end has just arrived, and so has all that follows it.
                        self.beyond = self.beyond.min(length);
                    }
                    self.largest = self.largest.max(received.len());
                    open &= !received.is_close();
                    take(received)?;
                }
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(WsError::Capacity(CapacityError::MessageTooLong { .. })) => {
                    LIMITS.hit("packet");
                    return Err(Ending::TooLarge);
                }
                Err(WsError::ConnectionClosed | WsError::Io(_)) => return Ok(()),
                Err(WsError::Utf8(_)) => return Err(Ending::NotUtf8),
                Err(_) => return Err(Ending::Malformed),
            }
        }
        if self.largest > LARGE && self.beyond == 0 && open {
            self.codec = WebSocketContext::new(Role::Server, Some(config(self.max_packet)));
            self.largest = 0;
        }
        Ok(())
    }
}

/// Discards what has arrived; `false` at the end of the stream.
pub fn discard(stream: &TcpStream) -> bool {
    match BUFFER.with_borrow_mut(|buffer| stream.try_read(buffer)) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Copies the bytes read ahead, so that the HTTP connection's 8 KiB buffer around them can be freed.
fn alone(ahead: Bytes) -> Vec<u8> {
    ahead.to_vec()
}

fn config(max_packet: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(KEPT)
        .max_message_size(Some(max_packet))
        .max_frame_size(Some(max_packet))
}

/// The length of a message in one masked frame with the shortest header. A message in several frames or with a longer
/// header is longer; the parser then seems to be within a message until the next one has arrived.
fn frame_length(payload: usize) -> usize {
    let header = match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    header + 4 + payload
}

/// Feeds read bytes to the parser as a stream.
struct Feed<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.input.read(buffer),
        }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_the_request_is_not_kept() {
        let mut buffer = bytes::BytesMut::with_capacity(8192);
        for ahead in ["", "ahead"] {
            buffer.extend_from_slice(ahead.as_bytes());
            let kept = alone(std::mem::replace(&mut buffer, bytes::BytesMut::with_capacity(8192)).freeze());
            assert_eq!((kept.as_slice(), kept.capacity()), (ahead.as_bytes(), ahead.len()));
        }
    }

    fn masked(payload: &[u8]) -> Vec<u8> {
        let mut client = WebSocketContext::new(Role::Client, None);
        let mut stream = io::Cursor::new(Vec::new());
        client.write(&mut stream, Received::Text(String::from_utf8(payload.to_vec()).unwrap().into())).unwrap();
        client.flush(&mut stream).unwrap();
        stream.into_inner()
    }

    fn feed(decoder: &mut Decoder, input: &[u8]) -> Vec<usize> {
        let mut taken = Vec::new();
        let fed = decoder.feed(input, &mut Vec::new(), |received| {
            taken.push(received.len());
            Ok(())
        });
        assert_eq!(fed, Ok(()));
        taken
    }

    #[test]
    fn packets_come_out_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 5000, 65_535, 65_536, 300];
        let bytes = lengths.iter().flat_map(|length| masked(&vec![b'x'; *length])).collect::<Vec<_>>();
        for piece in [1, 7, 4096, bytes.len()] {
            let mut decoder = Decoder::new(Bytes::new(), 100_000);
            let taken = bytes.chunks(piece).flat_map(|piece| feed(&mut decoder, piece)).collect::<Vec<_>>();
            assert_eq!(taken, lengths);
            assert_eq!(decoder.beyond, 0);
        }
    }

    #[test]
    fn what_was_read_ahead_counts() {
        let bytes = masked(b"hello");
        let mut decoder = Decoder::new(Bytes::copy_from_slice(&bytes[..4]), 1000);
        assert_eq!(feed(&mut decoder, &[]), [0; 0]);
        assert_eq!(feed(&mut decoder, &bytes[4..]), [5]);
    }

    #[test]
    fn a_packet_over_the_limit_is_refused() {
        let mut decoder = Decoder::new(Bytes::new(), 1000);
        assert_eq!(decoder.feed(&masked(&[b'x'; 1001]), &mut Vec::new(), |_| Ok(())), Err(Ending::TooLarge));
    }
}
