//! The payload of a POST: packets with a separator.
//! <https://github.com/socketio/engine.io-protocol#http-long-polling-1>

use axum::body::{Body, Bytes};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use confab_common::Code;
use confab_common::pace::Pace;

use crate::budget::Held;
use crate::net::{collect_steadily, next_frame};
use crate::refusal::Refusal;
use crate::session::Session;

/// The separator of packets in a payload.
pub const SEPARATOR: u8 = 0x1e;

/// A packet of a payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A text packet.
    Text(&'a str),
    /// A binary packet, which arrives as base64.
    Binary(Bytes),
}

/// Parses the packets of a payload. Text packets over `max_packet` bytes are errors.
pub fn packets(payload: &[u8], max_packet: usize) -> impl Iterator<Item = Result<Packet<'_>, Refusal>> {
    payload.split(|byte| *byte == SEPARATOR).map(move |packet| {
        let packet = std::str::from_utf8(packet).map_err(|_| Refusal::BadRequest)?;
        match packet.strip_prefix('b') {
            Some(binary) => Ok(Packet::Binary(STANDARD.decode(binary).map_err(|_| Refusal::BadRequest)?.into())),
            None if packet.len() > max_packet => Err(Refusal::too_large()),
            None => Ok(Packet::Text(packet)),
        }
    })
}

/// Largest payload of a POST, in bytes. It is a third larger than a packet, because attachments arrive as base64.
pub fn max_payload(max_packet: usize) -> usize {
    max_packet.div_ceil(3).saturating_mul(4)
}

/// Reads the complete payload of a signed request between nodes, and counts it in `held` while it arrives.
pub async fn whole_payload(body: Body, max_packet: usize, held: Option<&mut Held>) -> Result<Bytes, Refusal> {
    collect_steadily(body, max_payload(max_packet), held).await.map_err(|error| match error.code {
        Code::TooLarge => Refusal::too_large(),
        _ => Refusal::BadRequest,
    })
}

/// Received bytes that count for a session until this value is dropped.
struct Counted<'a, C> {
    session: &'a Session<C>,
    bytes: usize,
}

impl<C> Drop for Counted<'_, C> {
    fn drop(&mut self) {
        self.session.outbox.release(self.bytes);
    }
}

/// Reads the payload of a session's client, with packets of at most `max_packet` bytes, and counts it while it arrives.
///
/// # Errors
/// [`Refusal::TooLarge`], or [`Refusal::BadRequest`] when the payload is too slow or breaks off, or the session ends.
pub async fn read<C>(session: &Session<C>, max_packet: usize, mut body: Body) -> Result<Vec<u8>, Refusal> {
    let most = max_payload(max_packet);
    let mut counted = Counted { session, bytes: 0 };
    let (mut payload, mut pace) = (Vec::new(), Pace::default());
    loop {
        let frame = tokio::select! {
            frame = next_frame(&mut body, &mut pace) => frame.map_err(|_| Refusal::BadRequest)?,
            () = session.outbox.closed() => return Err(Refusal::BadRequest),
        };
        let Some(frame) = frame else { return Ok(payload) };
        let Ok(data) = frame.into_data() else { continue };
        session.touch();
        let left = session.outbox.left_to_unknown().unwrap_or(usize::MAX);
        if payload.len() + data.len() > most || data.len() > left {
            return Err(Refusal::too_large());
        }
        session.outbox.hold(data.len());
        counted.bytes += data.len();
        payload.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_separated_and_bounded() {
        let read = |payload: &'static [u8]| packets(payload, 10).collect::<Result<Vec<_>, _>>();
        assert_eq!(read(b"40\x1e3"), Ok(vec![Packet::Text("40"), Packet::Text("3")]));
        assert_eq!(read(b"bAQI="), Ok(vec![Packet::Binary(Bytes::from_static(&[1, 2]))]));
        assert_eq!(read(b""), Ok(vec![Packet::Text("")]));
        assert_eq!(read(b"4\xff"), Err(Refusal::BadRequest));
        assert_eq!(read(b"b!"), Err(Refusal::BadRequest));
        assert_eq!(read(b"42[\"123456789\"]"), Err(Refusal::TooLarge));
    }
}
