//! What a fault may do while it lasts, and how soon its traces must be gone.

use std::time::Duration;

/// The terms of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From healing to normal latency.
    pub recovers: Duration,
    /// A frozen process may answer nobody until it is healed.
    pub mute: bool,
    /// What was acknowledged may be delivered late until all is as before.
    pub late: bool,
    /// No REST request may fail.
    pub spares_rest: bool,
    /// How soon events are delivered meanwhile, all but one in a hundred.
    pub live: Option<Duration>,
    /// Of a hundred tries to send, how many may fail meanwhile.
    pub fails: usize,
    /// Longest time in which nothing at all may be acknowledged, or nothing delivered live.
    pub pause: Option<Duration>,
    /// What cannot be done meanwhile is refused as unavailable or too late.
    pub refuses: bool,
    /// Once it is healed, hints are heard again within `recovers`.
    pub hints: bool,
}

const ANY: usize = 100;
const SECOND: Option<Duration> = Some(Duration::from_secs(1));
/// A call gives a replica a second before it asks another one.
const BREATH: Option<Duration> = Some(Duration::from_secs(3));

/// Whoever is hurt tries again; within this time everything is as before, of itself (I7).
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
};
/// The others carry on.
pub const CARRIES_ON: Terms = Terms { fails: 5, pause: BREATH, ..TERMS };
/// Chat does not notice.
pub const SPARES_CHAT: Terms = Terms { live: SECOND, fails: 1, pause: BREATH, ..TERMS };
/// Live delivery goes on by reading the log.
pub const BUS: Terms = Terms { recovers: Duration::from_secs(5), hints: true, ..SPARES_CHAT };
/// The clients of one gateway go to another.
pub const GATEWAY: Terms = Terms { recovers: Duration::from_secs(10), ..TERMS };
/// Nobody can say who is answered by what stands still.
pub const FREEZES: Terms = Terms { mute: true, late: true, ..TERMS };
/// Nothing can be sent, and nothing read of what was missed.
pub const DATABASE: Terms = Terms { recovers: Duration::from_secs(10), late: true, ..TERMS };
/// The same, for long enough that somebody is told.
pub const DATABASE_REFUSES: Terms = Terms { refuses: true, ..DATABASE };
/// Who leaves in order lets nobody down.
pub const GENTLE: Terms = Terms { spares_rest: true, ..TERMS };
