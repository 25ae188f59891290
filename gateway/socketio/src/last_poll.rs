//! Remembers the last GET of a session in case it is repeated: a balancer repeats a GET whose answer did not arrive. A
//! client never does, but its next GET may have the same `t`, which only serves to defeat caches: many clients use a
//! clock for it.
//!
//! What a GET whose `t` equals the last one's receives, by what became of the last answer:
//!
//! | last answer | `t` reads as a clock | any other `t` |
//! |---|---|---|
//! | still awaited when this GET came | the same bytes | the same bytes |
//! | acknowledged by the peer's TCP, or followed by a request on its connection | what comes next | what comes next |
//! | its connection has ended without that, or [`SETTLES_WITHIN`] has passed | the session ends | the same bytes |
//! | not known: the gateway that passed it on is gone | what comes next | the same bytes |
//!
//! With a clock, the two cases of the third row look alike: a repeat must not miss the bytes, and a new GET must not
//! receive them twice. Ending the session avoids both, since the client reconnects and asks for what it missed. An
//! answer that another gateway forwarded has arrived when the client's TCP has acknowledged it there, so that gateway
//! is asked.
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

/// Longest `t` that is remembered, in bytes.
const MAX_T: usize = 64;

/// The last GET of a session and, once it is answered, its payload.
#[derive(Default)]
pub struct LastPoll {
    // Boxed: sockets that never poll are the many.
    last: Mutex<Option<Box<Last>>>,
    /// Notified when the GET waits no longer.
    pub over: Notify,
}

struct Last {
    /// `None`: no GET can be a repeat of this one.
    t: Option<Box<str>>,
    answered: Option<(Bytes, Way)>,
}

/// The way an answer takes to the client.
#[derive(Clone)]
pub enum Way {
    /// Over a connection of this gateway.
    Here(Answer),
    /// Through another gateway.
    Through(Passage),
    /// Through a gateway that does not identify the GET, or over no connection.
    Unknown,
}

impl Way {
    /// Starts watching the answer that is about to be given.
    fn watch(&self) {
        if let Self::Here(answer) = self {
            answer.watch();
        }
    }
}

impl LastPoll {
    /// Whether the GET has this `t`.
    pub(crate) fn is(&self, t: Option<&str>) -> bool {
        t.is_some() && self.last.lock().as_ref().is_some_and(|last| last.t.as_deref() == t)
    }

    /// The answer and its way, if the GET has this `t`.
    pub(crate) fn answer(&self, t: Option<&str>) -> Option<(Bytes, Way)> {
        self.last.lock().as_ref().filter(|last| t.is_some() && last.t.as_deref() == t)?.answered.clone()
    }

    /// The way of the last answer, if some of it waits for its connection here.
    pub(crate) fn untaken(&self) -> Option<Way> {
        match &self.last.lock().as_ref()?.answered {
            Some((_, way @ Way::Here(answer))) if !answer.is_taken() => Some(way.clone()),
            _ => None,
        }
    }

    pub(crate) fn begin(&self, t: Option<&str>, outbox: &Outbox) {
        *self.last.lock() = Some(Box::new(Last { t: t.filter(|t| t.len() <= MAX_T).map(Box::from), answered: None }));
        outbox.keep(0);
    }

    /// Records the answer.
    pub(crate) fn answered(&self, payload: &Bytes, way: Way, outbox: &Outbox) {
        if let Some(last) = &mut *self.last.lock() {
            way.watch();
            let kept = if last.t.is_some() { payload.clone() } else { Bytes::new() };
            outbox.keep(kept.len());
            last.answered = Some((kept, way));
        }
    }

    /// Records that the same answer is given again; `false` when it is no longer the last one.
    pub(crate) fn repeated(&self, payload: &Bytes, way: Way) -> bool {
        match self.last.lock().as_mut().and_then(|last| last.answered.as_mut()) {
            Some((last, last_way)) if last.as_ptr() == payload.as_ptr() => {
                way.watch();
                *last_way = way;
                true
            }
            _ => false,
        }
    }

    /// Forgets the answer: no GET will need it again.
    pub fn forget(&self, outbox: &Outbox) {
        *self.last.lock() = None;
        outbox.keep(0);
    }
}

/// Whether a `t` reads as a time of these years: a date, or a count since an epoch. The stamps of JavaScript clients do
/// not, and they differ from poll to poll: the time in base 36 without its first three digits, then three random ones;
/// before version 4.8 the time in base 64, plus a counter within the same time.
pub(crate) fn is_clock(t: &str) -> bool {
    /// Units per second, and how many seconds before 1970 they count from: Unix' own, .NET's ticks, Windows' file
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
