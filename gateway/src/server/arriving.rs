//! The head of a request while it arrives: counts its bytes, checks its lines, and enforces its time limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use super::MAX_HEAD;
use confab_socketio::budget::Held;
use confab_socketio::net::wire::Wire;

/// The time limit for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The same while more than half of the connections are in use, except for connections of a trusted proxy.
const HEAD_WITHIN_CROWDED: Duration = Duration::from_secs(5);
/// How long a connection may be idle between requests while more than half of the connections are in use.
const IDLE_WITHIN_CROWDED: Duration = Duration::from_secs(10);

/// How often a connection is checked: no event reports that it becomes idle, or that most connections are in use.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The time limits of a connection.
#[derive(Clone)]
pub struct Timeouts {
    /// How long a connection may be idle between requests.
    pub idle: Duration,
    /// The permits for connections, and half of their number; `None` for the connection of a trusted proxy.
    pub places: Option<(Arc<Semaphore>, usize)>,
}

impl Timeouts {
    fn is_crowded(&self) -> bool {
        self.places.as_ref().is_some_and(|(places, half)| places.available_permits() < *half)
    }
}

/// The head that is arriving on a connection.
pub struct Arriving {
    /// Counts the head, up to the size of its buffer. `None` for a trusted proxy, which sends complete requests.
    held: Option<Held>,
    /// The number of requests that had begun before this head.
    begun: u64,
    head: Head,
    refused: Option<StatusCode>,
    timeouts: Timeouts,
    /// The time of the first byte of the head or, before that, the start of the idle time.
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub fn new(held: Option<Held>, timeouts: Timeouts) -> Self {
        Self { held, begun: 0, head: Head::default(), refused: None, timeouts, since: Instant::now(), timer: None }
    }

    /// Restarts the idle time.
    pub fn idles(&mut self) {
        self.since = Instant::now();
    }

    /// Checks received bytes. Returns the number of bytes that hyper may receive: all, unless a head is malformed.
    pub fn read(&mut self, bytes: &[u8], wire: &Wire) -> usize {
        let (begun, is_head) = (wire.requests.begun(), wire.arrived(bytes.len()));
        if begun > self.begun {
            self.begun = begun;
            self.head = Head::default();
            self.since = Instant::now();
            if let Some(held) = &mut self.held {
                held.clear();
            }
        }
        let mut passed = bytes.len();
        if is_head {
            if let Err((at, status)) = self.head.check(bytes) {
                self.refused = Some(status);
                passed = at;
            }
            if let Some(held) = &mut self.held {
                held.add(bytes.len().min(MAX_HEAD - held.bytes()));
            }
        }
        passed
    }

    /// The status that rejects the head, if it is malformed.
    pub fn refused(&self) -> Option<StatusCode> {
        self.refused
    }

    /// Called while no bytes arrive. Ready when the client exceeds a time limit.
    pub fn poll_late(&mut self, context: &mut Context<'_>, wire: &Wire) -> Poll<()> {
        let is_busy = wire.requests.is_busy();
        let idles = wire.requests.begun() > self.begun;
        // The request in progress counts its own head.
        if let Some(held) = self.held.as_mut().filter(|_| idles) {
            held.clear();
        }
        let within = match (idles, self.timeouts.is_crowded()) {
            (false, false) => HEAD_WITHIN,
            (false, true) => HEAD_WITHIN_CROWDED,
            (true, false) => self.timeouts.idle,
            (true, true) => self.timeouts.idle.min(IDLE_WITHIN_CROWDED),
        };
        let (now, again) = (Instant::now(), CHECK_INTERVAL.min(self.timeouts.idle));
        let due = if is_busy { now + again } else { self.since + within };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due.min(now + again))));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            if due <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due.min(now + again));
        }
        Poll::Pending
    }
}

/// Checks the lines of a head. hyper accepts a bare LF as the end of a line, but some proxies do not. Such heads are
/// rejected, so that the gateway and a proxy never parse a request differently (RFC 9112 section 2.2).
#[derive(Default)]
struct Head {
    /// Length of the head so far, in bytes.
    length: usize,
    /// Length of the current line so far, in bytes.
    line: usize,
    last: u8,
    /// The head may announce a body.
    has_body: bool,
    is_complete: bool,
}

impl Head {
    /// Checks the next bytes.
    ///
    /// # Errors
    /// The number of valid bytes before the error, and the status that rejects the head.
    fn check(&mut self, bytes: &[u8]) -> Result<(), (usize, StatusCode)> {
        let mut from = 0;
        while from < bytes.len() && !(self.is_complete && self.has_body) {
            if self.is_complete {
                // The next head follows a head without a body.
                *self = Self::default();
            }
            let end = bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at);
            let line = &bytes[from..end.unwrap_or(bytes.len())];
            // A line in several pieces is assumed to announce a body.
            self.has_body |= announces_body(line) || self.line > 0 || end.is_none();
            self.last = *line.last().unwrap_or(&self.last);
            self.line += line.len();
            self.length += line.len() + usize::from(end.is_some());
            if self.length > MAX_HEAD {
                return Err((from, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            let Some(end) = end else { break };
            if self.last != b'\r' {
                return Err((from, StatusCode::BAD_REQUEST));
            }
            // Empty lines before a request are skipped.
            self.is_complete = self.line == 1 && self.length > 2;
            (self.line, self.last, from) = (0, b'\n', end + 1);
        }
        Ok(())
    }
}

fn announces_body(line: &[u8]) -> bool {
    let names = [&b"content-length"[..], b"transfer-encoding"];
    names.iter().any(|name| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that rejects a head in these pieces.
    fn refused(pieces: &[&str]) -> Option<StatusCode> {
        let mut head = Head::default();
        pieces.iter().find_map(|piece| head.check(piece.as_bytes()).err()).map(|(_, status)| status)
    }

    #[test]
    fn lines_must_end_with_cr_lf() {
        for good in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            for at in 0..=good.len() {
                let (begin, end) = good.split_at(at);
                assert_eq!(refused(&[begin, end]), None, "{good:?} {at}");
            }
        }
        for bad in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "GET / HTTP/1.1\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            for at in 0..=bad.len() {
                let (begin, end) = bad.split_at(at);
                assert_eq!(refused(&[begin, end]), Some(StatusCode::BAD_REQUEST), "{bad:?} {at}");
            }
        }
        let mut two = Head::default();
        let first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let bad = format!("{first}GET / HTTP/1.1\nHost: x\r\n\r\n");
        assert_eq!(two.check(bad.as_bytes()), Err((first.len(), StatusCode::BAD_REQUEST)));
    }

    #[test]
    fn a_head_is_limited_to_32_kib() {
        let long = |bytes: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(bytes - 23));
        assert_eq!(refused(&[&long(MAX_HEAD)]), None);
        for bytes in [MAX_HEAD + 1, 2 * MAX_HEAD] {
            let long = long(bytes);
            let (begin, end) = long.split_at(20_000);
            assert_eq!(refused(&[&long]), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            assert_eq!(refused(&[begin, end]), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
    }
}
