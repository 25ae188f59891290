//! Reads request bodies within limits of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use confab_common::pace::Pace;
use confab_common::{Code, Error, Result};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::budget::Held;

/// Longest time without a byte from the client.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Returns the next frame of a body; `None` at its end. The body may take any time while it keeps the minimum rate of
/// `pace` and no gap exceeds 10 s.
///
/// # Errors
/// [`Code::InvalidRequest`] when the body breaks off, [`Code::TooSlow`] when it is too slow.
pub async fn next_frame(body: &mut Body, pace: &mut Pace) -> Result<Option<Frame<Bytes>>> {
    let since = Instant::now();
    let Some(frame) = timeout(SILENCE_LIMIT, body.frame()).await.map_err(|_| too_slow())? else { return Ok(None) };
    let frame = frame.map_err(|_| Error::new(Code::InvalidRequest, "the body ended early"))?;
    if pace.keeps(frame.data_ref().map_or(0, Bytes::len), since.elapsed()) { Ok(Some(frame)) } else { Err(too_slow()) }
}

/// Reads a complete body of at most `most` bytes, and counts it in `held` while it arrives. The limits of time are
/// those of [`next_frame`].
///
/// # Errors
/// As [`next_frame`]; [`Code::TooLarge`] for a body over `most` bytes.
pub async fn collect_steadily(mut body: Body, most: usize, mut held: Option<&mut Held>) -> Result<Bytes> {
    // The buffer grows with the received bytes. The declared length alone allocates no memory.
    let (mut read, mut pace) = (BytesMut::new(), Pace::default());
    while let Some(frame) = next_frame(&mut body, &mut pace).await? {
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(too_large(most));
        }
        if let Some(held) = held.as_deref_mut() {
            held.add(data.len());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// The error [`Code::TooSlow`] for a body that arrives too slowly.
pub fn too_slow() -> Error {
    Error::new(Code::TooSlow, "the body did not arrive in time")
}

/// The error [`Code::TooLarge`] for a body over its limit of `most` bytes.
pub fn too_large(most: usize) -> Error {
    Error::new(Code::TooLarge, format!("the body must be at most {most} bytes"))
}
