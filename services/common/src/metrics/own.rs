//! The metrics of this crate.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tonic::Code;

use super::{Counters, at_scrape, counter, gauge, histogram};

/// Requests above configurable limits, by limit. Each program registers its limits.
pub static LIMITS: LazyLock<Counters> = LazyLock::new(|| {
    Counters::new("confab_limits_total", "Connections, requests and packets that exceeded a limit, by limit", "limit")
});

pub fn limits_shared() -> Gauge {
    let help =
        "1 while the replicas share rate limits through Redis or there is one replica, 0 while each applies them alone";
    gauge("confab_limits_shared", help, &[])
}

/// Connections and calls between programs that this program refused, by reason.
pub static REFUSED_PEERS: LazyLock<Counters> = LazyLock::new(|| {
    Counters::new(
        "confab_grpc_refused_total",
        "Connections and calls between programs that this program refused: a failed (handshake) or slow (timeout) TLS \
         handshake of a caller, a caller without the role for a call (role), a server with another certificate (server)",
        "reason",
    )
    .with(&["handshake", "role", "server", "timeout"])
});

pub fn tls_days_left() -> Gauge {
    gauge(
        "confab_tls_days_left",
        "Days for which other programs will accept this program's certificate for gRPC, at most 365; -1: they reject it",
        &[],
    )
}

pub fn tasks() -> Gauge {
    gauge("confab_tasks", "Live tasks of the Tokio runtime", &[])
}

pub static BUS: LazyLock<Bus> = LazyLock::new(Bus::new);

pub struct Bus {
    /// Listeners that are subscribed.
    pub up: Gauge,
    /// Listeners that are disconnected.
    pub down: Gauge,
    /// Messages accepted for publication.
    pub published: Counter,
    pub received: Counter,
    pub dropped: Counters,
}

impl Bus {
    fn new() -> Self {
        let [up, down] = ["up", "down"].map(|state| {
            gauge(
                "confab_bus_listeners",
                "Bus listeners that are subscribed (up) or disconnected (down)",
                &[("state", state)],
            )
        });
        Self {
            up,
            down,
            published: counter("confab_bus_published_total", "Messages published on the bus", &[]),
            received: counter("confab_bus_heard_total", "Messages received from the bus", &[]),
            dropped: Counters::new(
                "confab_bus_dropped_total",
                "Messages dropped on either side of the bus, by reason",
                "reason",
            )
            .with(&[
                "bus_down",
                "forged",
                "malformed",
                "queue_full",
                "slow_listener",
                "slow_partition",
                "too_large",
            ]),
        }
    }
}

/// The metrics of a connection pool of one schema.
#[derive(Clone)]
pub struct Postgres {
    /// How long callers waited for a connection.
    pub wait: Histogram,
    /// Callers that received no connection.
    pub refused: Counter,
}

impl Postgres {
    /// Registers the metrics of a pool. `status` returns at each scrape: maximum, open and idle connections, waiting
    /// callers; `None` once the pool is closed.
    pub fn new(schema: &'static str, status: impl Fn() -> Option<[usize; 4]> + Send + 'static) -> Self {
        let labels = &[("schema", schema)];
        let connections = ["idle", "used"].map(|state| {
            let help = "Open connections to Postgres that are idle or used";
            gauge("confab_postgres_connections", help, &[("schema", schema), ("state", state)])
        });
        let max = gauge("confab_postgres_connections_max", "Maximum number of connections in the pool", labels);
        let waiting = gauge("confab_postgres_waiters", "Callers waiting for a connection", labels);
        at_scrape(move || {
            let Some([most, open, idle, callers]) = status() else { return };
            let [idle_now, used_now] = &connections;
            idle_now.set(idle as f64);
            used_now.set(open.saturating_sub(idle) as f64);
            max.set(most as f64);
            waiting.set(callers as f64);
        });
        Self {
            wait: histogram("confab_postgres_wait_seconds", "Time that callers waited for a connection", labels),
            refused: counter("confab_postgres_refused_total", "Callers that received no connection in time", labels),
        }
    }
}

/// Calls as measured by the caller.
pub static CLIENT: LazyLock<Calls> = LazyLock::new(|| {
    let help = "Duration of calls to services, including retries; for a stream, until it begins";
    Calls::new("confab_rpc_client_seconds", help)
});
/// Calls as measured by the service.
pub static SERVER: LazyLock<Calls> = LazyLock::new(|| {
    Calls::new("confab_rpc_server_seconds", "Duration of calls that a service handles; for a stream, until it begins")
});

/// Durations of calls, by service, method and code.
pub struct Calls(&'static str);

impl Calls {
    fn new(name: &'static str, help: &'static str) -> Self {
        metrics::describe_histogram!(name, help);
        Self(name)
    }

    pub fn record(&self, path: &str, code: Code, took: Duration) {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let code = CODES.get(code as usize).copied().unwrap_or("UNKNOWN");
        metrics::histogram!(self.0, "service" => service.to_owned(), "method" => method.to_owned(), "code" => code)
            .record(took);
    }
}

/// The names of the gRPC codes, in numeric order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub fn build_info(program: &str) -> Gauge {
    metrics::describe_gauge!("confab_build_info", "1; the labels identify the program");
    metrics::gauge!("confab_build_info", "program" => program.to_owned(), "version" => env!("CARGO_PKG_VERSION"))
}

pub fn ready() -> Gauge {
    gauge("confab_ready", "1 while /readyz returns 200, 0 otherwise", &[])
}
