//! Counts and hashes a file's bytes and detects their media type while they arrive, and limits how long they may take.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use confab_common::pace::{Pace, WINDOW};
use confab_common::{Code, Error, Result};
use futures::stream::{BoxStream, StreamExt};
use tokio::time::Instant;

use super::Part;
use crate::media::{HEAD, Media};
use crate::metrics::METRICS;

/// The bytes so far.
pub struct Intake {
    size: u64,
    head: Vec<u8>,
    digest: Context,
    /// Time that the object store takes does not count against the sender.
    pace: Pace,
}

/// The properties of the complete content.
pub struct Content {
    pub size: u64,
    pub sha256: String,
    pub media: Media,
}

impl Default for Intake {
    fn default() -> Self {
        Self { size: 0, head: Vec::new(), digest: Context::new(&SHA256), pace: Pace::default() }
    }
}

impl Intake {
    /// Waits for the next part.
    ///
    /// # Errors
    /// `invalid_request` when the stream ends before the upload does, [`Code::TooSlow`] when it takes too long to
    /// arrive.
    pub async fn next(&mut self, parts: &mut BoxStream<'static, Result<Part>>) -> Result<Part> {
        let begun = Instant::now();
        let part = tokio::time::timeout(WINDOW, parts.next()).await.map_err(|_| stalled())?;
        let part = part.unwrap_or_else(|| Err(Error::new(Code::InvalidRequest, "the upload ended early")))?;
        if let Part::Chunk(chunk) = &part
            && !self.pace.keeps(chunk.len(), begun.elapsed())
        {
            return Err(stalled());
        }
        Ok(part)
    }

    /// Processes the next bytes.
    pub fn take(&mut self, chunk: &Bytes) {
        self.size += chunk.len() as u64;
        METRICS.uploaded.increment(chunk.len() as u64);
        self.digest.update(chunk);
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }

    /// Returns how many bytes have arrived.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the properties of the complete content; `claim` is the type that the sender claims.
    pub fn finish(self, claim: &str) -> Content {
        let sha256 = self.digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Content { size: self.size, sha256, media: Media::of(&self.head, claim) }
    }
}

fn stalled() -> Error {
    Error::new(Code::TooSlow, "the upload is too slow")
}

#[cfg(test)]
mod tests;
