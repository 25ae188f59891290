//! Feeds the body of a form to the parser.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use confab_common::pace::{Pace, WINDOW};
use confab_common::{Code, Error, Result};
use futures::Stream;
use tokio::time::{Instant, Sleep, sleep};

/// Most bytes of a form besides its file, including bytes of the file in the parser's buffer.
pub const MAX_BESIDE: u64 = 128 * 1024;
/// Most bytes in one piece for the parser.
const PIECE: usize = 32 * 1024;

/// State that both sides of the parser share.
#[derive(Default)]
pub struct Gauge {
    /// `true` when the parser may read one more piece.
    open: AtomicBool,
    /// Bytes of the file that the parser has handed out.
    of_file: AtomicU64,
}

impl Gauge {
    /// Allows the parser to read one more piece.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// Stops the parser from reading.
    pub fn shut(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Records that the parser has handed out bytes of the file.
    pub fn note_of_file(&self, bytes: usize) {
        self.of_file.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Feeds a body in small pieces. Without it, the parser would read all available bytes before it parses them.
pub struct Source {
    body: Body,
    /// Bytes that were read but not handed out yet.
    ahead: Bytes,
    handed_out: u64,
    gauge: Arc<Gauge>,
    clock: Clock,
}

impl Source {
    pub fn new(body: Body, gauge: Arc<Gauge>) -> Self {
        Self { body, ahead: Bytes::new(), handed_out: 0, gauge, clock: Clock::new() }
    }

    /// Reads more once all bytes were handed out; `false` at the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        while self.ahead.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(Ok(false)),
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(Error::new(Code::InvalidRequest, "the body ended early")));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if !self.clock.arrived(data.len()) {
                        return Poll::Ready(Err(too_slow()));
                    }
                    self.ahead = data;
                }
                Poll::Pending => {
                    ready!(self.clock.poll_silence(context));
                    return Poll::Ready(Err(too_slow()));
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl Stream for Source {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.gauge.open.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        match ready!(self.poll_more(context)) {
            Ok(true) => {}
            Ok(false) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        }
        let length = self.ahead.len().min(PIECE);
        let piece = self.ahead.split_to(length);
        self.handed_out += length as u64;
        if self.handed_out - self.gauge.of_file.load(Ordering::Relaxed) > MAX_BESIDE {
            return Poll::Ready(Some(Err(Error::new(
                Code::InvalidRequest,
                "the form has too many bytes besides its file",
            ))));
        }
        self.gauge.shut();
        // If the parser needs more, it must be polled again.
        context.waker().wake_by_ref();
        Poll::Ready(Some(Ok(piece)))
    }
}

fn too_slow() -> Error {
    Error::new(Code::TooSlow, "the body did not arrive in time")
}

/// Detects a client that stalls or sends too slowly. Time in which the server does not read is not counted.
struct Clock {
    silence: Pin<Box<Sleep>>,
    /// When the server began to wait for the client.
    since: Option<Instant>,
    pace: Pace,
}

impl Clock {
    fn new() -> Self {
        Self { silence: Box::pin(sleep(WINDOW)), since: None, pace: Pace::default() }
    }

    /// Records bytes that arrived; `false` when the pace is too slow.
    fn arrived(&mut self, bytes: usize) -> bool {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.pace.keeps(bytes, waited)
    }

    /// Ready when the client has sent nothing for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.silence.as_mut().reset(now + WINDOW);
        }
        self.silence.as_mut().poll(context)
    }
}
