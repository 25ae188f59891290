//! The server's metrics.

use std::sync::LazyLock;

use confab_common::metrics::{Counters, LIMITS, counter, gauge};
use metrics::{Counter, Gauge};

use crate::ending::Ending;

/// The server's metrics, which all servers of a process share.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Handles of the metrics.
pub struct Metrics {
    /// Open sessions that use polling.
    pub polling: Gauge,
    /// Open sessions that use a WebSocket.
    pub websocket: Gauge,
    /// Open sessions without an identified client.
    pub pending_sessions: Gauge,
    /// Ended sessions, by cause.
    pub session_ends: Counters,
    /// Bytes held for all clients together.
    pub outbox_bytes: Gauge,
    /// Operations that waited because their holder has more than an equal share of these bytes.
    pub outbox_waits: Counters,
    /// Connections closed because of unread bytes, by reason.
    pub outbox_closes: Counters,
    /// Requests proxied to other nodes.
    pub forwarded: Counter,
    /// Requests of other nodes that were rejected because the cluster's signature is missing or wrong.
    pub forward_refused: Counter,
    /// Open WebSockets that this node tunnels to other nodes.
    pub tunnels: Gauge,
}

impl Metrics {
    fn new() -> Self {
        LIMITS.exist(&[
            "before_connect",
            "connect_timeout",
            "connections",
            "events_per_second",
            "packet",
            "pending_sessions",
        ]);
        let [polling, websocket] = ["polling", "websocket"].map(|transport| {
            gauge("confab_sessions", "Open Engine.IO sessions, by transport", &[("transport", transport)])
        });
        Self {
            polling,
            websocket,
            pending_sessions: gauge(
                "confab_pending_sessions",
                "Open Engine.IO sessions whose client has not sent CONNECT",
                &[],
            ),
            session_ends: Counters::new("confab_session_ends_total", "Ended Engine.IO sessions, by cause", "cause")
                .with(&Ending::ALL.map(Ending::code)),
            outbox_bytes: gauge(
                "confab_outbox_bytes",
                "Bytes held for all clients together: waiting data, unfinished requests, answers that are not read; small amounts are not counted",
                &[],
            ),
            outbox_waits: Counters::new(
                "confab_outbox_waits_total",
                "Joins, pages, recoveries and sends that waited because over half of CONFAB_MAX_OUTBOX_BYTES is held and their user holds more than an equal part of it",
                "what",
            ),
            outbox_closes: Counters::new(
                "confab_outbox_closes_total",
                "Sockets and connections closed because of unread data: over their own bound (overflow), over the common bound (total), too little read for too long (stuck)",
                "reason",
            )
            .with(&["overflow", "stuck", "total"]),
            forwarded: counter(
                "confab_forwarded_total",
                "Requests forwarded to the gateway that has their session",
                &[],
            ),
            forward_refused: counter(
                "confab_forward_refused_total",
                "Requests at the port between gateways without the cluster key's signature",
                &[],
            ),
            tunnels: gauge("confab_tunnels", "WebSockets tunnelled through this gateway to another", &[]),
        }
    }
}
