//! The settings of a server.

use std::time::Duration;

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The time between two pings of a session.
    pub ping_interval: Duration,
    /// The longest time from a ping to its answer, or to any other packet; after it the session counts as lost.
    pub ping_timeout: Duration,
    /// The longest time from the opening of a session to the client's CONNECT and its identification.
    pub connect_timeout: Duration,
    /// Events that one socket may send each second, twice as many in a burst; 0: no limit. The application receives events
    /// beyond it with [`Event::over_limit`](crate::Event::over_limit).
    pub max_events_per_second: u32,
    /// Sessions that may be open without an identified client; beyond it, the server closes the oldest one of the address
    /// with most of them; 0: no limit.
    pub max_pending_sessions: usize,
    /// Largest packet from a client, in bytes, with its attachments. Clients that are not identified yet may send 16 KiB.
    pub max_packet: usize,
    /// How long a session of another node that is being drained may take to finish its events.
    pub leave_within: Duration,
}

impl Default for Config {
    /// The intervals of the reference server, and bounds for a server on one machine.
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            max_events_per_second: 2000,
            max_pending_sessions: 4096,
            max_packet: 1_114_112,
            leave_within: Duration::from_secs(3),
        }
    }
}
