//! What a process measures of itself, for `/metrics`. A metric is named and described where its handle is made, in one file of
//! each crate, and exists from the start; docs/metrics.md has them all, and a test compares.
//!
//! Whoever measures often keeps the handle: it is an atomic number, whereas a look-up by name and labels takes a map and a lock.

mod own;
#[cfg(target_os = "linux")]
mod system;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process::Readiness;

pub use own::LIMITS;
pub(crate) use own::{BUS, CLIENT, Calls, Postgres, SERVER};

/// Bounds of durations in seconds; a request may take 2.5 of them unless it is told otherwise.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Bounds of numbers of things that go together.
const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// How often samples are put into their buckets, so that they do not pile up while nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

// A std lock: held while they are called, which never waits.
static COLLECTORS: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Has metrics recorded from now on. Called once, before the first handle is made.
///
/// # Errors
/// When there is a recorder already.
pub fn install() -> anyhow::Result<()> {
    let counts = ["_rows", "_events"].map(|suffix| Matcher::Suffix(suffix.into()));
    let builder = counts
        .into_iter()
        .try_fold(PrometheusBuilder::new().set_buckets(&SECONDS)?, |builder, matcher| builder.set_buckets_for_metric(matcher, &COUNTS))?;
    let handle = builder.install_recorder().context("installing the metrics recorder")?;
    RECORDER.get_or_init(|| handle);
    Ok(())
}

/// Begins to tell of the process as such, and to keep what is recorded small.
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

/// All metrics in the Prometheus text format.
pub fn render() -> String {
    COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|collect| collect());
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Has something called whenever metrics are asked for, to set gauges of what is cheaper to look at than to follow.
pub fn at_scrape(collect: impl Fn() + Send + 'static) {
    COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collect));
}

/// Labels of a metric that are known from the start.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

/// A counter.
pub fn counter(name: &'static str, help: &'static str, labels: Labels) -> Counter {
    metrics::describe_counter!(name, help);
    metrics::counter!(name, labels)
}

/// A gauge.
pub fn gauge(name: &'static str, help: &'static str, labels: Labels) -> Gauge {
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name, labels)
}

/// A histogram; its name ends in what it measures: `_seconds`, `_rows` or `_events`.
pub fn histogram(name: &'static str, help: &'static str, labels: Labels) -> Histogram {
    metrics::describe_histogram!(name, help);
    metrics::histogram!(name, labels)
}

/// Counters of one name, told apart by one label, for what is rare.
pub struct Counters {
    name: &'static str,
    label: &'static str,
}

impl Counters {
    /// The counters of that name.
    pub fn new(name: &'static str, help: &'static str, label: &'static str) -> Self {
        metrics::describe_counter!(name, help);
        Self { name, label }
    }

    /// The same, with those of these values there from the start: nobody can be alarmed by what was not there before.
    #[must_use]
    pub fn with(self, values: &[&'static str]) -> Self {
        self.exist(values);
        self
    }

    /// Has those of these values exist.
    pub fn exist(&self, values: &[&'static str]) {
        values.iter().for_each(|value| self.add(value, 0));
    }

    /// Counts one.
    pub fn hit(&self, value: &'static str) {
        self.add(value, 1);
    }

    /// Counts so many.
    pub fn add(&self, value: &'static str, count: u64) {
        metrics::counter!(self.name, self.label => value).increment(count);
    }
}

/// How long something took, told apart by how it ended.
pub struct Outcomes {
    ok: Histogram,
    refused: Histogram,
    failed: Histogram,
}

impl Outcomes {
    /// Histograms of that name, with the label `outcome` beside these.
    pub fn new(name: &'static str, help: &'static str, labels: Labels) -> Self {
        let [ok, refused, failed] =
            ["ok", "refused", "failed"].map(|outcome| histogram(name, help, &[labels, &[("outcome", outcome)]].concat()));
        Self { ok, refused, failed }
    }

    /// Takes note of one. What the caller is to blame for was refused; anything else failed.
    pub fn record<T>(&self, result: &crate::Result<T>, took: Duration) {
        match result {
            Ok(_) => self.ok.record(took),
            Err(error) if error.code.http_status() < 500 => self.refused(took),
            Err(_) => self.failed.record(took),
        }
    }

    /// Takes note of one that its caller is to blame for.
    pub fn refused(&self, took: Duration) {
        self.refused.record(took);
    }
}
