//! The last GET of a session and its answer, in case the GET is repeated. A load balancer repeats a GET whose answer
//! did not arrive. Clients do not repeat a GET, but a client's next GET may have the same query parameter `t`. Its only
//! purpose is to bypass caches, and many clients use a clock for it.
//!
//! The response to a GET with the same `t` as the last one depends on the outcome of the last answer:
//!
//! | outcome of the last answer | `t` is a clock | any other `t` |
//! |---|---|---|
//! | the last GET was still pending when this GET arrived | the same bytes | the same bytes |
//! | delivered: acknowledged by TCP, or followed by another request on the connection | next packets | next packets |
//! | lost: the connection has ended, or [`SETTLES_WITHIN`] has passed | the session ends | the same bytes |
//! | unknown: the node that proxied it has stopped | next packets | the same bytes |
//! | untracked: the HTTP server does not report outcomes | next packets | next packets |
//!
//! If `t` is a clock and the answer is lost, the server cannot distinguish a repeat, which needs the bytes, from a new
//! GET, which must not receive them twice. It therefore ends the session: the client reconnects and requests the events
//! that it missed. If another node proxied the answer, this node requests the outcome from that node, because the
//! client's TCP connection is there.
//!
//! [`SETTLES_WITHIN`]: crate::net::wire::SETTLES_WITHIN

use axum::body::Bytes;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::wire::Answer;
use crate::outbox::Outbox;
use crate::passage::Passage;

/// Longest `t` that is stored, in bytes. A GET with a longer one cannot be repeated.
const MAX_T: usize = 64;

/// The last GET of a session and, once it is answered, its payload.
#[derive(Default)]
pub struct LastPoll {
    // Boxed, because most sessions do not poll.
    last: Mutex<Option<Box<Last>>>,
    /// Notified when the GET ends.
    pub over: Notify,
}

struct Last {
    /// `None`: the GET had no `t`, or one that is too long, so no repeat can be detected.
    t: Option<Box<str>>,
    answered: Option<(Bytes, Route)>,
}

/// The route of an answer to the client.
#[derive(Clone)]
pub enum Route {
    /// Over a connection of this node.
    Here(Answer),
    /// Through another node.
    Through(Passage),
    /// Through a node that does not identify the GET.
    Unknown,
    /// Over an HTTP server that does not track its answers.
    Untracked,
}

impl Route {
    /// Starts watching the answer before it is sent.
    fn watch(&self) {
        if let Self::Here(answer) = self {
            answer.watch();
        }
    }
}

impl LastPoll {
    /// Whether the last GET had this `t`.
    pub(crate) fn is(&self, t: Option<&str>) -> bool {
        t.is_some() && self.last.lock().as_ref().is_some_and(|last| last.t.as_deref() == t)
    }

    /// The answer and its route, if the last GET had this `t`.
    pub(crate) fn answer(&self, t: Option<&str>) -> Option<(Bytes, Route)> {
        self.last.lock().as_ref().filter(|last| t.is_some() && last.t.as_deref() == t)?.answered.clone()
    }

    /// The route of the last answer, if part of it is still unsent on a connection of this node.
    pub(crate) fn unsent_route(&self) -> Option<Route> {
        match &self.last.lock().as_ref()?.answered {
            Some((_, route @ Route::Here(answer))) if !answer.is_taken() => Some(route.clone()),
            _ => None,
        }
    }

    pub(crate) fn begin(&self, t: Option<&str>, outbox: &Outbox) {
        *self.last.lock() = Some(Box::new(Last { t: t.filter(|t| t.len() <= MAX_T).map(Box::from), answered: None }));
        outbox.keep(0);
    }

    /// Records the answer.
    pub(crate) fn answered(&self, payload: &Bytes, route: Route, outbox: &Outbox) {
        if let Some(last) = &mut *self.last.lock() {
            route.watch();
            let kept = if last.t.is_some() { payload.clone() } else { Bytes::new() };
            outbox.keep(kept.len());
            last.answered = Some((kept, route));
        }
    }

    /// Records that the last answer is sent again; `false` when `payload` is no longer the last answer.
    pub(crate) fn repeated(&self, payload: &Bytes, route: Route) -> bool {
        match self.last.lock().as_mut().and_then(|last| last.answered.as_mut()) {
            Some((last, last_route)) if last.as_ptr() == payload.as_ptr() => {
                route.watch();
                *last_route = route;
                true
            }
            _ => false,
        }
    }

    /// Drops the answer when no GET can repeat it any more.
    pub fn forget(&self, outbox: &Outbox) {
        *self.last.lock() = None;
        outbox.keep(0);
    }
}

/// Whether `t` is a clock: a date, or a count of time units since an epoch, within 10 years of now. The stamps of
/// JavaScript clients are not clocks, and they differ from poll to poll: the time in base 36 without its first three
/// digits, then three random digits; before version 4.8 the time in base 64, with a counter for equal times.
pub(crate) fn is_clock(t: &str) -> bool {
    /// Units per second, and the number of seconds between the epoch and 1970: Unix times, .NET ticks, Windows file
    /// times.
    const CLOCKS: [(f64, f64); 7] =
        [(1.0, 0.0), (1e3, 0.0), (1e6, 0.0), (1e7, 0.0), (1e9, 0.0), (1e7, 62_135_596_800.0), (1e7, 11_644_473_600.0)];
    const YEARS: i16 = 10;
    const YEAR: f64 = 366.0 * 86400.0;
    if t.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && let Ok(number) = t.parse::<f64>()
    {
        let now = Timestamp::now().as_second() as f64;
        return CLOCKS.iter().any(|(unit, before)| (number / unit - before - now).abs() < f64::from(YEARS) * YEAR);
    }
    let year = |time: Timestamp| TimeZone::UTC.to_datetime(time).year();
    let written = t.parse().map(year).or_else(|_| t.parse().map(|time: civil::DateTime| time.year()));
    written.is_ok_and(|written| written.abs_diff(year(Timestamp::now())) <= YEARS as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_distinguished_from_other_stamps() {
        let now = Timestamp::now();
        let ticks = now.as_nanosecond() / 100;
        let clocks = [
            now.as_second().to_string(),
            (now.as_second() - 86400).to_string(),
            now.as_millisecond().to_string(),
            now.as_microsecond().to_string(),
            now.as_nanosecond().to_string(),
            ticks.to_string(),
            (ticks + 621_355_968_000_000_000).to_string(),
            format!("{}.1234567", now.as_second()),
            now.to_string(),
            now.to_string().trim_end_matches('Z').into(),
        ];
        for t in clocks {
            assert!(is_clock(&t), "{t}");
        }
        // Stamps of engine.io-client 6.6 and of yeast, checksums, counters, and others.
        let others = [
            "7hw2kq3x",
            "12345678",
            "PeJ9Xz1",
            "PeJ9Xz1.0",
            "3421780262",
            "17",
            "0",
            "",
            ".",
            "1e9",
            "inf",
            "1777-01-01T00:00:00Z",
        ];
        for t in others {
            assert!(!is_clock(t), "{t}");
        }
    }
}
