//! A process's metrics, for `/metrics`. Each metric is named and described where its handle is created, in one file per
//! crate, and exists from the start. docs/metrics.md lists all metrics, and a test compares the two.
//!
//! Code that measures often must keep the handle, which is an atomic number; a look-up by name and labels takes a map
//! and a lock.

mod own;
#[cfg(target_os = "linux")]
mod system;

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;

use crate::readiness::Readiness;

pub use own::LIMITS;
pub(crate) use own::{BUS, CLIENT, Calls, Postgres, REFUSED_PEERS, SERVER, limits_shared, tls_days_left};

/// Bucket bounds of durations, in seconds. The default deadline of a call is 2.5 s.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Bucket bounds of batch sizes.
const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// How often samples are sorted into buckets, so that they do not pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

// Locked while the collectors run; collectors never block.
static COLLECTORS: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Installs the metrics recorder. Must be called once, before the first handle is created.
///
/// # Errors
/// When a recorder is already installed.
pub fn install() -> anyhow::Result<()> {
    let counts = ["_rows", "_events"].map(|suffix| Matcher::Suffix(suffix.into()));
    let builder =
        counts.into_iter().try_fold(PrometheusBuilder::new().set_buckets(&SECONDS)?, |builder, matcher| {
            builder.set_buckets_for_metric(matcher, &COUNTS)
        })?;
    let handle = builder.install_recorder().context("installing the metrics recorder")?;
    RECORDER.get_or_init(|| handle);
    Ok(())
}

/// Starts the metrics of the process and the recorder's upkeep.
pub fn start(program: &str, readiness: Readiness) {
    own::build_info(program).set(1.0);
    let ready = own::ready();
    at_scrape(move || ready.set(f64::from(u8::from(readiness.missing().is_none()))));
    let (tasks, runtime) = (own::tasks(), tokio::runtime::Handle::current().metrics());
    at_scrape(move || tasks.set(runtime.num_alive_tasks() as f64));
    #[cfg(target_os = "linux")]
    system::start();
    tokio::spawn(async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            if let Some(recorder) = RECORDER.get() {
                recorder.run_upkeep();
            }
        }
    });
}

/// Renders all metrics in the Prometheus text format.
pub fn render() -> String {
    COLLECTORS.lock().iter().for_each(|collect| collect());
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Registers a function that runs at every scrape. It sets gauges that are cheaper to read than to track.
pub fn at_scrape(collect: impl Fn() + Send + 'static) {
    COLLECTORS.lock().push(Box::new(collect));
}

pub type Labels<'a> = &'a [(&'static str, &'static str)];

pub fn counter(name: &'static str, help: &'static str, labels: Labels) -> Counter {
    metrics::describe_counter!(name, help);
    metrics::counter!(name, labels)
}

pub fn gauge(name: &'static str, help: &'static str, labels: Labels) -> Gauge {
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name, labels)
}

/// Creates a histogram. Its name ends in the unit: `_seconds`, `_rows` or `_events`.
pub fn histogram(name: &'static str, help: &'static str, labels: Labels) -> Histogram {
    metrics::describe_histogram!(name, help);
    metrics::histogram!(name, labels)
}

/// Counters of rare events, with one name and one label.
pub struct Counters {
    name: &'static str,
    label: &'static str,
}

impl Counters {
    pub fn new(name: &'static str, help: &'static str, label: &'static str) -> Self {
        metrics::describe_counter!(name, help);
        Self { name, label }
    }

    /// Creates the counters for these label values: an alert cannot fire on a counter that did not exist before.
    #[must_use]
    pub fn with(self, values: &[&'static str]) -> Self {
        self.exist(values);
        self
    }

    /// Creates the counters for these label values.
    pub fn exist(&self, values: &[&'static str]) {
        values.iter().for_each(|value| self.add(value, 0));
    }

    /// Adds 1.
    pub fn hit(&self, value: &'static str) {
        self.add(value, 1);
    }

    pub fn add(&self, value: &'static str, count: u64) {
        metrics::counter!(self.name, self.label => value).increment(count);
    }
}

/// Histograms of durations, one per outcome.
pub struct Outcomes {
    ok: Histogram,
    refused: Histogram,
    failed: Histogram,
}

impl Outcomes {
    /// Creates the histograms, with the label `outcome` in addition to these labels.
    pub fn new(name: &'static str, help: &'static str, labels: Labels) -> Self {
        let [ok, refused, failed] = ["ok", "refused", "failed"]
            .map(|outcome| histogram(name, help, &[labels, &[("outcome", outcome)]].concat()));
        Self { ok, refused, failed }
    }

    /// Records a duration. An error that the caller caused counts as `refused`, any other error as `failed`.
    pub fn record<T>(&self, result: &crate::Result<T>, took: Duration) {
        match result {
            Ok(_) => self.ok.record(took),
            Err(error) if error.code.http_status() < 500 => self.refused(took),
            Err(_) => self.failed.record(took),
        }
    }

    /// Records a duration that ended with an error caused by the caller.
    pub fn refused(&self, took: Duration) {
        self.refused.record(took);
    }
}
