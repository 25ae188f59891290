//! The settings of a [`Server`](crate::Server).

use std::time::Duration;

/// The settings of a [`Server`](crate::Server). [`Config::default`] has the intervals of the reference server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The time between two pings of a session (default 25 s).
    /// <https://github.com/socketio/engine.io-protocol#heartbeat>
    pub ping_interval: Duration,
    /// The longest time from a ping to the next packet of the client (default 20 s). After it, the server closes the
    /// session.
    pub ping_timeout: Duration,
    /// The longest time from the start of a session until the client is identified (default 10 s).
    pub connect_timeout: Duration,
    /// Events per second from one client, with bursts of twice that number (default 2,000; 0: no limit). The
    /// application receives further events with [`Event::over_limit`](crate::Event::over_limit).
    pub max_events_per_second: u32,
    /// Open sessions without an identified client (default 4,096; 0: no limit). Beyond that, the server closes the
    /// oldest such session of the address that has the most.
    pub max_pending_sessions: usize,
    /// Largest packet from a client with its attachments, in bytes (default 1,114,112). The limit is 16 KiB until the
    /// client is identified.
    pub max_packet: usize,
    /// How long a client whose requests come through a draining node may take to finish its events (default 3 s).
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
