//! Reads the log from the message service, and tracks whether the hints of the bus are reliable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use confab_common::bus::Subscriptions;
use confab_common::grpc::{self, Call};
use confab_proto::message::v1::{Event, GetHeadsRequest, GetHeadsResponse, ReadLogRequest, ReadLogResponse};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clients::Clients;
use crate::metrics::METRICS;

/// Interval between polls of the heads, normally and while hints are unreliable.
pub const POLL: Duration = Duration::from_secs(1);
pub const POLL_DEGRADED: Duration = Duration::from_millis(250);
/// How long hints count as unreliable after a missed hint.
const CLEAN: Duration = Duration::from_secs(5);
const HEADS: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500));

/// The log and the state of its hints.
pub struct Log {
    clients: Clients,
    /// The bus channels of the hints.
    pub subscriptions: Subscriptions,
    bus_up: AtomicBool,
    start: Instant,
    /// When the last hint was missed, in ms after `start`.
    missed: AtomicU64,
    /// Wakes the poller before the interval ends.
    soon: Notify,
}

impl Log {
    /// Hints count as unreliable until the bus is connected.
    pub fn new(clients: Clients, subscriptions: Subscriptions) -> Self {
        let (bus_up, missed) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { clients, subscriptions, bus_up, start: Instant::now(), missed, soon: Notify::new() }
    }

    /// The heads of partitions, read from the primary database. `None` when the message service did not answer.
    pub async fn heads(&self, partitions: &[u32]) -> Option<GetHeadsResponse> {
        let request = grpc::request(GetHeadsRequest { partitions: partitions.to_vec() }, HEADS);
        match self.clients.message.clone().get_heads(request).await {
            Ok(heads) => Some(heads.into_inner()),
            Err(status) => {
                tracing::debug!(%status, "cannot read the heads");
                None
            }
        }
    }

    /// The epoch and head of one partition, read from the primary database.
    pub async fn head(&self, partition: u32) -> Option<(String, u64)> {
        let heads = self.heads(&[partition]).await?;
        let position = heads.heads.first()?.position;
        Some((heads.epoch, position))
    }

    /// The events after a position, at most this many bytes. `None` when the message service did not answer.
    pub async fn read(&self, partition: u32, after: u64, max_bytes: u32) -> Option<ReadLogResponse> {
        let request = grpc::request(ReadLogRequest { partition, after, limit: 0, max_bytes }, self.clients.read);
        match self.clients.message.clone().read_log(request).await {
            Ok(page) => {
                let mut page = page.into_inner();
                self.hide_deleted(&mut page.events);
                Some(page)
            }
            Err(status) => {
                tracing::debug!(partition, %status, "cannot read the log");
                None
            }
        }
    }

    /// Hides the names of deleted users. Events reach the gateway through [`Log::read`] or in hints.
    pub fn hide_deleted(&self, events: &mut [Event]) {
        self.clients.deleted.hide_in_events(events);
    }

    /// Records a missed hint: heads are polled more often for a while.
    pub fn note_miss(&self) {
        METRICS.misses.increment(1);
        self.missed.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.ask_soon();
    }

    /// Polls the heads before the interval ends.
    pub fn ask_soon(&self) {
        self.soon.notify_one();
    }

    /// Completes when the heads should be polled again. `begin`: when the last poll began.
    pub async fn poll_is_due(&self, begin: Instant) {
        let since_miss =
            self.start.elapsed().saturating_sub(Duration::from_millis(self.missed.load(Ordering::Relaxed)));
        let relied_on = self.is_bus_up() && since_miss > CLEAN;
        let asked = timeout_at(begin + if relied_on { POLL } else { POLL_DEGRADED }, self.soon.notified());
        if asked.await.is_ok() {
            sleep_until(begin + POLL_DEGRADED).await;
        }
    }

    /// Whether the bus is connected.
    pub fn is_bus_up(&self) -> bool {
        self.bus_up.load(Ordering::Relaxed)
    }

    /// Records whether the bus is connected.
    pub fn set_bus_up(&self, up: bool) {
        self.bus_up.store(up, Ordering::Relaxed);
        if up {
            // Hints that were published meanwhile are lost.
            self.note_miss();
        } else {
            self.ask_soon();
        }
    }
}
