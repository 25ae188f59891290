//! The gateway's metrics.

use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::http::{Method, StatusCode};
use confab_common::metrics::{Counters, LIMITS, Outcomes, counter, gauge, histogram};
use metrics::{Counter, Gauge, Histogram};

/// The gateway's metrics. The texts below describe each one.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

const REQUESTS: &str = "confab_http_request_seconds";

pub struct Metrics {
    pub connects: Counters,
    pub joins: Outcomes,
    pub leaves: Outcomes,
    pub messages: Outcomes,
    pub edits: Outcomes,
    pub removals: Outcomes,
    pub pins: Outcomes,
    pub reactions: Outcomes,
    pub uploads: Outcomes,
    pub reads: Outcomes,
    pub renewals: Outcomes,
    pub typings: Outcomes,
    pub recoveries: Counters,
    pub history_reads: Counter,
    pub deliveries: Counter,
    pub send_batch: Histogram,
    pub send_refused: Counter,
    pub send_repeats: Counter,
    pub followed: Gauge,
    pub lag: Gauge,
    pub keeping_up: Gauge,
    pub misses: Counter,
    pub repaired: Counter,
    pub resyncs: Counter,
    pub pauses: Counter,
}

impl Metrics {
    fn new() -> Self {
        metrics::describe_histogram!(
            REQUESTS,
            "Duration of HTTP requests until the head of the response, by route; unknown routes together"
        );
        LIMITS.exist(&["origin", "pages", "rooms_per_socket", "sockets_per_user", "sockets_per_address", "typing"]);
        confab_socketio::METRICS.outbox_waits.exist(&["join", "page", "recovery", "send"]);
        let events = [
            "joinRoom",
            "leaveRoom",
            "message",
            "edit",
            "remove",
            "pin",
            "fileUpload",
            "read",
            "react",
            "auth",
            "typing",
        ];
        let [joins, leaves, messages, edits, removals, pins, uploads, reads, reactions, renewals, typings] =
            events.map(|event| {
            let help = "Duration of Socket.IO events from arrival to acknowledgement; refused: the client's error, failed: the server's";
            Outcomes::new("confab_event_seconds", help, &[("event", event)])
        });
        Self {
            connects: Counters::new("confab_connects_total", "CONNECTs of sockets, by outcome", "outcome").with(&[
                "accepted",
                "refused",
                "limited",
                "unavailable",
            ]),
            joins,
            leaves,
            messages,
            edits,
            removals,
            pins,
            uploads,
            reads,
            reactions,
            renewals,
            typings,
            recoveries: Counters::new(
                "confab_recoveries_total",
                "Sockets that reconnected with a recovery offset; exact: they were recovered",
                "exact",
            )
            .with(&["yes", "no"]),
            history_reads: counter(
                "confab_history_reads_total",
                "Reads of a room's history for clients that join it",
                &[],
            ),
            deliveries: counter("confab_deliveries_total", "Events queued in outboxes, one for each socket", &[]),
            send_batch: histogram("confab_send_batch_events", "Events per append to the message service", &[]),
            send_refused: counter(
                "confab_send_refused_total",
                "Sends refused because too many wait for the message service",
                &[],
            ),
            send_repeats: counter(
                "confab_send_repeats_total",
                "Sends repeated because the message service rejected them as unavailable",
                &[],
            ),
            followed: gauge("confab_follower_partitions", "Followed partitions of the log", &[]),
            lag: gauge(
                "confab_follower_lag_positions",
                "Positions by which the slowest followed partition was behind at the last poll",
                &[],
            ),
            keeping_up: gauge(
                "confab_follower_keeping_up",
                "1 while every followed partition reaches the log's head within 5 s",
                &[],
            ),
            misses: counter(
                "confab_follower_misses_total",
                "Holes in the sequence of hints, which are filled by reading the log",
                &[],
            ),
            repaired: counter(
                "confab_follower_repaired_events_total",
                "Events read from the log because their hint was missing",
                &[],
            ),
            resyncs: counter(
                "confab_follower_resyncs_total",
                "Partitions that started over, whose clients reconnect and ask for missed events",
                &[],
            ),
            pauses: counter("confab_pauses_total", "Pauses of the process of over 2 s", &[]),
        }
    }
}

/// Counts an HTTP request. Unknown paths and methods never become labels, because clients choose them.
pub fn request(route: Option<&MatchedPath>, method: &Method, status: StatusCode, took: Duration) {
    let route = route.map_or_else(|| "unknown".to_owned(), |route| route.as_str().to_owned());
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    let status = match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    metrics::histogram!(REQUESTS, "route" => route, "method" => method, "status" => status).record(took);
}
