//! Reads the body of a POST, bounded and counted while it arrives.

use axum::body::Body;
use confab_common::pace::Pace;

use crate::edge::body::next_frame;
use crate::realtime::post::max_payload;
use crate::realtime::refusal::Refusal;
use crate::realtime::session::Session;

/// Bytes that are counted for a session until this is dropped.
struct Held<'a> {
    session: &'a Session,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.session.outbox.release(self.bytes);
    }
}

/// Reads a payload.
///
/// # Errors
/// When it is too large, arrives too slowly or breaks off, or the session ends before it has arrived.
pub(super) async fn read(session: &Session, mut body: Body) -> Result<Vec<u8>, Refusal> {
    let most = max_payload(session.socket.max_packet(session));
    let mut held = Held { session, bytes: 0 };
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
        held.bytes += data.len();
        payload.extend_from_slice(&data);
    }
}
