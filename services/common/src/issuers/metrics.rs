//! The metrics of the app's own issuers.

use std::sync::LazyLock;

use metrics::{Counter, Gauge};

use crate::metrics::{counter, gauge};

/// The label of an issuer: its place in `CONFAB_ISSUERS`.
const PLACES: [&str; MAX_ISSUERS] =
    ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
/// Maximum number of issuers.
pub const MAX_ISSUERS: usize = 16;

pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    rejected: counter(
        "confab_issuer_rejected_total",
        "Tokens rejected while CONFAB_ISSUERS is set, except those that name another issuer",
        &[],
    ),
});

pub struct Metrics {
    pub rejected: Counter,
}

/// The metrics of one issuer.
pub struct OfIssuer {
    pub fetched: Counter,
    pub failed: Counter,
    pub keys: Gauge,
}

impl OfIssuer {
    /// Registers the metrics of the issuer at this place, counted from 0.
    pub fn at(place: usize) -> Self {
        let issuer = PLACES[place.min(MAX_ISSUERS - 1)];
        let [fetched, failed] = ["ok", "failed"].map(|outcome| {
            counter(
                "confab_issuer_fetches_total",
                "Fetches of an issuer's keys, by its place in CONFAB_ISSUERS; a key file counts when it is new or unusable",
                &[("issuer", issuer), ("outcome", outcome)],
            )
        });
        let keys =
            gauge("confab_issuer_keys", "Keys in use, by the issuer's place in CONFAB_ISSUERS", &[("issuer", issuer)]);
        Self { fetched, failed, keys }
    }
}

/// Registers the metrics that exist without issuers, too.
pub fn register() {
    LazyLock::force(&METRICS);
    drop(OfIssuer::at(0));
}
