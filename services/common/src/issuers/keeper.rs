//! Keeps the keys of one issuer up to date.
//!
//! One task for each issuer reads the keys: when they are due, and when a token needs newer ones. It ends a read that a
//! caller requested also when that caller disconnects, so that no client can cause more reads than the limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::config::Entry;
use super::fetch::Fetcher;
use super::keys::Keys;
use super::metrics::OfIssuer;
use super::source::{READ_LIMIT, Source, read_file};
use crate::readiness::Readiness;

/// How often keys are fetched from an issuer that answers; 10 % more or less, so that replicas do not fetch together.
const FETCH_EVERY: Duration = Duration::from_secs(3600);
/// The pause after a failed fetch, and the shortest time between two reads that tokens cause.
const FETCH_AGAIN: Duration = Duration::from_secs(30);
/// How often a key file is read.
const FILE_EVERY: Duration = Duration::from_secs(10);

pub struct Keeper {
    entry: Arc<Entry>,
    fetcher: Option<Arc<Fetcher>>,
    readiness: Readiness,
    metrics: OfIssuer,
    // The lock of the channel is held to copy or set fields, never across an await.
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    /// Kept until newer keys have been read, even if the issuer never answers again.
    keys: Option<Arc<Keys>>,
    is_reading: bool,
    has_failed: bool,
    /// When the last read that a token caused, or that failed, began.
    spent: Option<Instant>,
}

impl Keeper {
    /// Starts to keep the keys. Those in a file are read at once.
    ///
    /// # Errors
    /// When a key file cannot be used.
    pub fn start(
        entry: Arc<Entry>,
        fetcher: Option<Arc<Fetcher>>,
        readiness: Readiness,
    ) -> anyhow::Result<(Arc<Self>, AbortOnDropHandle<()>)> {
        let metrics = OfIssuer::at(entry.place);
        let (mut state, mut content) = (State::default(), None);
        match &entry.source {
            Source::Url(_) => state.is_reading = true,
            Source::File(path) => {
                let read = read_file(path).and_then(|read| Ok((Keys::of_file(&read, &entry.algorithms)?, read)));
                let (keys, read) = read.map_err(|error| entry.explain("keyFile", error))?;
                metrics.fetched.increment(1);
                metrics.keys.set(keys.len() as f64);
                state.keys = Some(Arc::new(keys));
                content = Some(read);
            }
        }
        let keeper = Arc::new(Self { entry, fetcher, readiness, metrics, state: watch::Sender::new(state) });
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.clone().renew(content)));
        Ok((keeper, task))
    }

    /// The keys as of the last successful read.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.state.borrow().keys.clone()
    }

    /// Returns keys other than `used`, if there are any. Reads them, unless tokens have caused a read in the last 30 s;
    /// all callers share one read.
    pub async fn newer_than(&self, used: Option<&Arc<Keys>>) -> Option<Arc<Keys>> {
        let newer =
            |keys: Option<&Arc<Keys>>| keys.filter(|keys| used.is_none_or(|used| !Arc::ptr_eq(keys, used))).cloned();
        let (now, mut found, mut waits) = (Instant::now(), None, false);
        self.state.send_if_modified(|state| {
            found = newer(state.keys.as_ref());
            let begins = found.is_none()
                && !state.is_reading
                && state.spent.is_none_or(|spent| now.saturating_duration_since(spent) >= FETCH_AGAIN);
            if begins {
                state.is_reading = true;
                state.spent = Some(now);
            }
            waits = found.is_none() && state.is_reading;
            begins
        });
        if waits {
            let mut states = self.state.subscribe();
            // A second more than the read may take: the limit only matters if the task has died.
            let read = timeout(READ_LIMIT + Duration::from_secs(1), states.wait_for(|state| !state.is_reading)).await;
            drop(read);
            found = newer(self.state.borrow().keys.as_ref());
        }
        found
    }

    /// Reads the keys when they are due, for ever.
    async fn renew(self: Arc<Self>, mut content: Option<Bytes>) {
        let mut states = self.state.subscribe();
        loop {
            let pause = self.pause();
            drop(timeout(pause, states.wait_for(|state| state.is_reading)).await);
            self.state.send_modify(|state| state.is_reading = true);
            let began = Instant::now();
            let read = self.read(&mut content).await;
            self.report(&read);
            self.state.send_modify(|state| {
                state.is_reading = false;
                state.has_failed = read.is_err();
                match read {
                    Ok(Some(keys)) => state.keys = Some(keys),
                    Ok(None) => {}
                    Err(_) => state.spent = Some(began),
                }
            });
        }
    }

    fn pause(&self) -> Duration {
        match &self.entry.source {
            Source::File(_) => FILE_EVERY,
            Source::Url(_) if self.state.borrow().has_failed => FETCH_AGAIN,
            Source::Url(_) => {
                let random = Uuid::new_v4().as_u128() % 201;
                FETCH_EVERY.mul_f64(0.9 + random as f64 / 1000.0)
            }
        }
    }

    /// Reads the keys. Returns `None` if they are those of the last successful read.
    async fn read(&self, content: &mut Option<Bytes>) -> anyhow::Result<Option<Arc<Keys>>> {
        let read = self.entry.source.read(self.fetcher.as_ref()).await?;
        if content.as_ref() == Some(&read) {
            return Ok(None);
        }
        let keys = match &self.entry.source {
            Source::Url(_) => Keys::of_set(&read, &self.entry.algorithms)?,
            Source::File(_) => Keys::of_file(&read, &self.entry.algorithms)?,
        };
        *content = Some(read);
        Ok(Some(Arc::new(keys)))
    }

    fn report(&self, read: &anyhow::Result<Option<Arc<Keys>>>) {
        let had_failed = self.state.borrow().has_failed;
        let issuer = &*self.entry.issuer;
        match read {
            Ok(keys) => {
                if keys.is_some() || self.entry.is_fetched() {
                    self.metrics.fetched.increment(1);
                }
                if let Some(keys) = keys {
                    self.metrics.keys.set(keys.len() as f64);
                    tracing::info!(issuer, keys = keys.len(), "the issuer has new keys");
                } else if had_failed {
                    tracing::info!(issuer, "the keys of the issuer can be read again");
                }
                self.readiness.note(&self.entry.part(), None);
            }
            Err(error) => {
                self.metrics.failed.increment(1);
                if had_failed {
                    tracing::debug!(issuer, "cannot read the keys of the issuer: {error:#}");
                } else {
                    tracing::warn!(
                        issuer,
                        "cannot read the keys of the issuer, whose known keys stay valid: {error:#}"
                    );
                }
                self.readiness.note(&self.entry.part(), Some(format!("cannot read the keys of {issuer}: {error:#}")));
            }
        }
    }
}
