//! What a fault may cause while it lasts, and how soon the system must recover.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time limit from healing to normal latency.
    pub recovers: Duration,
    /// Whether a frozen process may answer no client until it is healed.
    pub mute: bool,
    /// Whether acknowledged messages may be delivered late until the system has recovered.
    pub late: bool,
    /// Whether no REST request may fail.
    pub spares_rest: bool,
    /// The 99th percentile of delivery times during the fault.
    pub live: Option<Duration>,
    /// The percentage of sends that may fail during the fault.
    pub fails: usize,
    /// Longest gap between acknowledgements, or between live deliveries.
    pub pause: Option<Duration>,
    /// Whether requests that cannot be served are rejected as unavailable or timed out.
    pub refuses: bool,
    /// Whether hints arrive again within `recovers` after healing.
    pub hints: bool,
    /// Whether no replica of auth can answer during the fault, and how soon one answers after healing.
    pub auth: Option<Duration>,
}

const ANY: usize = 100;
const SECOND: Option<Duration> = Some(Duration::from_secs(1));
/// A call gives a replica one second before it tries another replica.
const BREATH: Option<Duration> = Some(Duration::from_secs(3));
/// The system recovers within this time after the database has returned.
const WITHOUT_DATABASE: Duration = Duration::from_secs(10);

/// Affected clients retry; the system recovers on its own within this time (I7).
pub const TERMS: Terms = Terms {
    recovers: Duration::from_secs(15),
    mute: false,
    late: false,
    spares_rest: false,
    live: None,
    fails: ANY,
    pause: None,
    refuses: false,
    hints: false,
    auth: None,
};
/// The other processes continue.
pub const CARRIES_ON: Terms = Terms { fails: 5, pause: BREATH, ..TERMS };
/// Chat is not affected.
pub const SPARES_CHAT: Terms = Terms { live: SECOND, fails: 1, pause: BREATH, ..TERMS };
/// Chat is not affected, but no user can log in or out.
pub const AUTH: Terms = Terms { auth: Some(Duration::ZERO), ..SPARES_CHAT };
/// Live delivery continues by reading the log.
pub const BUS: Terms = Terms { recovers: Duration::from_secs(5), hints: true, ..SPARES_CHAT };
/// The clients of one gateway move to another.
pub const GATEWAY: Terms = Terms { recovers: Duration::from_secs(10), ..TERMS };
/// A frozen process may answer no client.
pub const FREEZES: Terms = Terms { mute: true, late: true, ..TERMS };
/// No message can be sent, and no missed message can be read.
pub const DATABASE: Terms = Terms { recovers: WITHOUT_DATABASE, late: true, auth: Some(WITHOUT_DATABASE), ..TERMS };
/// Like `DATABASE`, but so long that requests are rejected.
pub const DATABASE_REFUSES: Terms = Terms { refuses: true, ..DATABASE };
/// The database is replaced by an older copy; a frozen program may answer no client meanwhile.
pub const RESTORES: Terms = Terms { auth: Some(WITHOUT_DATABASE), ..FREEZES };
/// A graceful shutdown affects no client.
pub const GENTLE: Terms = Terms { spares_rest: true, ..TERMS };
