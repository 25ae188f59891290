//! Finds the processes behind configured names, by DNS or from a list. Names are resolved again every few seconds.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// Minimum time between two resolutions, regardless of how many callers request one.
const RESOLVE_PAUSE: Duration = Duration::from_millis(100);
/// A process is removed after this many consecutive resolutions without its address.
const MAX_ABSENCES: u32 = 2;

/// Resolves names until it is dropped, and keeps a `P` for each address.
pub struct Discovery<P> {
    /// As `host:port`.
    targets: Vec<String>,
    make: Box<dyn Fn(SocketAddr) -> anyhow::Result<P> + Send + Sync>,
    /// Sorted by address. Locked to copy or change the list, never across an await.
    known: Mutex<Vec<Known<P>>>,
    /// Separate, so that the task that waits for it keeps no other field alive.
    wanted: Arc<Notify>,
    resolved: Notify,
}

struct Known<P> {
    address: SocketAddr,
    process: P,
    /// Consecutive resolutions that did not contain the address.
    absences: u32,
}

impl<P: Clone + Send + 'static> Discovery<P> {
    /// Starts resolving these `host:port`s. Calls `make` once for each new address.
    pub fn start(
        targets: Vec<String>,
        make: impl Fn(SocketAddr) -> anyhow::Result<P> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let discovery = Arc::new(Self {
            targets,
            make: Box::new(make),
            known: Mutex::default(),
            wanted: Arc::default(),
            resolved: Notify::new(),
        });
        tokio::spawn(keep_resolving(Arc::downgrade(&discovery)));
        discovery
    }

    /// Returns the known processes, sorted by address.
    pub fn list(&self) -> Vec<P> {
        self.known.lock().iter().map(|known| known.process.clone()).collect()
    }

    /// Returns the first known process that satisfies the condition.
    pub fn find(&self, is_wanted: impl Fn(&P) -> bool) -> Option<P> {
        self.known.lock().iter().map(|known| &known.process).find(|process| is_wanted(process)).cloned()
    }

    /// Requests another resolution soon, without waiting.
    pub fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// Completes after the next resolution.
    pub async fn resolved(&self) {
        self.resolved.notified().await;
    }

    /// Returns what `look` finds. If it finds nothing, waits up to `patience` for the next resolution, and calls `look`
    /// once more.
    pub async fn look<T>(&self, patience: Duration, look: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let resolved = self.resolved.notified();
        if let Some(found) = look(self) {
            return Some(found);
        }
        self.refresh();
        let _ = timeout(patience, resolved).await;
        look(self)
    }

    /// Adds new addresses, and removes addresses that were absent repeatedly. An empty resolution changes nothing.
    pub fn update(&self, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        known.retain_mut(|known| {
            known.absences = if addresses.contains(&known.address) { 0 } else { known.absences + 1 };
            known.absences < MAX_ABSENCES
        });
        for address in addresses {
            if known.iter().any(|known| known.address == *address) {
                continue;
            }
            match (self.make)(*address) {
                Ok(process) => known.push(Known { address: *address, process, absences: 0 }),
                Err(error) => tracing::warn!(%address, %error, "unusable address"),
            }
        }
        known.sort_by_key(|known| known.address);
    }
}

async fn keep_resolving<P: Clone + Send + 'static>(discovery: Weak<Discovery<P>>) {
    while let Some(discovery) = discovery.upgrade() {
        let mut addresses = Vec::new();
        for target in &discovery.targets {
            match tokio::net::lookup_host(target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::debug!(%target, %error, "cannot resolve"),
            }
        }
        discovery.update(&addresses);
        discovery.resolved.notify_waiters();
        let wanted = discovery.wanted.clone();
        drop(discovery);
        sleep(RESOLVE_PAUSE).await;
        let _ = timeout(RESOLVE_EVERY, wanted.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(targets: &[&str]) -> Arc<Discovery<SocketAddr>> {
        Discovery::start(targets.iter().map(|target| (*target).into()).collect(), Ok)
    }

    #[tokio::test]
    async fn processes_are_removed_after_two_absences_except_the_last() {
        let discovery = discovery(&[]);
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.2:1".parse().unwrap());
        discovery.update(&[b, a, b]);
        discovery.update(&[b]);
        assert_eq!(discovery.list(), [a, b]);
        discovery.update(&[b]);
        discovery.update(&[]);
        discovery.update(&[]);
        assert_eq!(discovery.list(), [b]);
    }

    #[tokio::test]
    async fn lookup_of_an_unknown_process_resolves_again() {
        let discovery = discovery(&["127.0.0.1:7"]);
        let is = |port| move |discovery: &Discovery<SocketAddr>| discovery.find(|address| address.port() == port);
        assert!(discovery.look(Duration::from_secs(5), is(7)).await.is_some());
        assert!(discovery.look(Duration::from_millis(1), is(8)).await.is_none());
    }

    #[tokio::test]
    async fn discovery_ends_when_its_last_handle_is_dropped() {
        let discovery = discovery(&["127.0.0.1:7"]);
        let left = Arc::downgrade(&discovery);
        drop(discovery);
        while left.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
