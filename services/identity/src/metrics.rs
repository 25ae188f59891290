//! The metrics of every program that verifies tokens.

use std::sync::LazyLock;

use confab_common::metrics::{counter, gauge};
use metrics::{Counter, Gauge};

/// The metrics of tokens and their revocation. The texts below describe each one.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    pub early_tokens: Counter,
    pub revocations: Gauge,
    pub blocked_users: Gauge,
    pub revocations_age: Gauge,
}

impl Metrics {
    fn new() -> Self {
        Self {
            early_tokens: counter(
                "confab_early_tokens_total",
                "Tokens refused because they are not valid yet: the clock of this machine is behind that of auth",
                &[],
            ),
            revocations: gauge("confab_revocations", "Known revocations of tokens that have not expired", &[]),
            blocked_users: gauge("confab_blocked_users", "Suspended and deleted users, whose tokens are rejected", &[]),
            revocations_age: gauge("confab_revocations_age_seconds", "Seconds since auth last listed revocations", &[]),
        }
    }
}

/// The credentials that a service has received, by outcome.
pub static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(Credentials::new);

pub struct Credentials {
    pub known: Counter,
    pub verified: Counter,
    pub refused: Counter,
    pub absent: Counter,
    pub unknown: Counter,
    pub late: Counter,
}

impl Credentials {
    fn new() -> Self {
        let [known, verified, refused, absent, unknown, late] =
            ["known", "verified", "refused", "absent", "unknown", "late"].map(|outcome| {
                let help = "Credentials of users and server keys in calls and events, by outcome";
                counter("confab_credentials_total", help, &[("outcome", outcome)])
            });
        Self { known, verified, refused, absent, unknown, late }
    }
}
