//! The sign-ins that have ended by logout. The gateway reads them from auth every second and receives hints on the bus
//! in between.
//!
//! Auth numbers revocations without gaps, so every missed revocation is above the highest number read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use confab_common::bus::{self, Bus, Notice, Notices, Subscriptions};
use confab_common::clock::now_ms;
use confab_common::grpc::{Call, Transport, request};
use confab_common::metrics::at_scrape;
use confab_common::process::Process;
use confab_common::readiness::Condition;
use confab_common::standstill::PauseDetector;
use confab_common::{Error, Result};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{ListRevocationsRequest, Revocation};
use confab_proto::channel::REVOCATIONS;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use crate::metrics::METRICS;
use confab_common::tables;

/// Interval between two reads from auth, in addition to hints.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500));
/// After a pause of the process: how long a caller waits until the revocations are up to date.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How often a waiting caller checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Interval between two purges of expired sign-ins.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How long a revocation is kept after its token's expiry, in ms: the leeway for clocks accepts tokens a few seconds
/// longer.
const REMEMBER_MS: i64 = 60_000;

/// The revoked sign-ins; clones share them.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    auth: AuthServiceClient<Transport>,
    // Each lock is held for one look-up or insertion, never across an await.
    sessions: RwLock<HashMap<Uuid, i64>>,
    followers: Mutex<Vec<mpsc::UnboundedSender<Uuid>>>,
    /// When the list was last read to its end; before the first read, when the process started.
    read: Mutex<Instant>,
    /// The highest number read. Locked during a read, so that there is one reader at a time.
    position: tokio::sync::Mutex<u64>,
    pauses: Arc<PauseDetector>,
}

impl Revocations {
    /// Starts following auth's list. The process is not ready until the whole list was read once.
    pub fn start(auth: AuthServiceClient<Transport>, bus: &Bus, process: &Process) -> Self {
        let revocations = Self(Arc::new(Inner {
            auth,
            sessions: RwLock::default(),
            followers: Mutex::default(),
            read: Mutex::new(Instant::now()),
            position: tokio::sync::Mutex::default(),
            pauses: Arc::default(),
        }));
        let measured = Arc::downgrade(&revocations.0);
        at_scrape(move || measured.upgrade().iter().for_each(|inner| inner.measure()));
        let loaded = process.readiness.condition("revocations");
        tokio::spawn(follow(Arc::downgrade(&revocations.0), bus.listen(), loaded));
        revocations
    }

    /// Detects pauses of the process, during which hints may have been missed.
    pub(crate) fn pauses(&self) -> &Arc<PauseDetector> {
        &self.0.pauses
    }

    /// Completes when the revocations are up to date: after a pause of the process, once auth has answered.
    ///
    /// # Errors
    /// `unavailable` when auth does not answer within 2 s.
    pub async fn known(&self) -> Result<()> {
        if !self.0.pauses.is_paused() {
            return Ok(());
        }
        let known = async {
            while self.0.pauses.is_paused() {
                sleep(CHECK_INTERVAL).await;
            }
        };
        timeout(KNOWN_WITHIN, known).await.map_err(|_| Error::unavailable("the list of revocations"))
    }

    /// Whether this sign-in (a token's `jti`) was revoked.
    pub fn is_revoked(&self, session_id: Uuid) -> bool {
        self.0.sessions.read().contains_key(&session_id)
    }

    /// Receives the ids of sign-ins revoked from now on, each once. A caller must register a socket before it checks
    /// [`Revocations::is_revoked`], so that no revocation falls between the two.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Uuid> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.followers.lock().push(sender);
        receiver
    }

    /// Adds a revocation that this gateway requested itself. `expires_at_ms`: expiry of the token, in ms since the Unix
    /// epoch.
    pub fn add(&self, session_id: Uuid, expires_at_ms: i64) {
        let mut sessions = self.0.sessions.write();
        if sessions.insert(session_id, expires_at_ms).is_none() {
            drop(sessions);
            let mut followers = self.0.followers.lock();
            followers.retain(|follower| follower.send(session_id).is_ok());
        }
    }

    /// Reads new revocations now.
    ///
    /// # Errors
    /// When auth does not answer. The revocations read until then are kept.
    pub async fn catch_up(&self) -> Result<()> {
        let mut position = self.0.position.lock().await;
        loop {
            let ask = request(ListRevocationsRequest { after: *position, limit: 0 }, ASK);
            let page = self.0.auth.clone().list_revocations(ask).await?.into_inner();
            if page.head < *position {
                tracing::warn!(
                    head = page.head,
                    position = *position,
                    "auth was restored to an older state; reading all revocations again"
                );
                *position = 0;
                continue;
            }
            let mut malformed = 0_u64;
            for revocation in &page.revocations {
                *position = revocation.number.max(*position);
                malformed += u64::from(!self.take(revocation));
            }
            if malformed > 0 {
                tracing::error!(malformed, below = *position, "skipped revocations whose session id is not a UUID");
            }
            if page.revocations.is_empty() || *position >= page.head {
                *self.0.read.lock() = Instant::now();
                return Ok(());
            }
        }
    }

    /// Handles a hint. A hint does not advance the position, because earlier hints may have been lost.
    fn hear(&self, payload: &[u8]) {
        match Revocation::decode(payload) {
            Ok(revocation) if self.take(&revocation) => {}
            _ => bus::dropped("malformed", 1),
        }
    }

    /// Adds a revocation. Returns `false` when its session id is not a UUID.
    fn take(&self, revocation: &Revocation) -> bool {
        let id = revocation.session_id.parse();
        id.map(|id| self.add(id, revocation.expires_at_ms)).is_ok()
    }

    fn purge(&self) {
        let now = now_ms();
        let mut sessions = self.0.sessions.write();
        sessions.retain(|_, expires_at_ms| expires_at_ms.saturating_add(REMEMBER_MS) > now);
        tables::shrink(&mut sessions);
    }
}

impl Inner {
    fn measure(&self) {
        METRICS.revocations.set(self.sessions.read().len() as f64);
        METRICS.revocations_age.set(self.read.lock().elapsed().as_secs_f64());
    }
}

/// Follows auth's list until all clones of the revocations are dropped.
async fn follow(revocations: Weak<Inner>, (subscriptions, mut notices): (Subscriptions, Notices), loaded: Condition) {
    // While the bus is down, the confirmation does not arrive; no task waits for it.
    let subscribing = subscriptions.clone();
    tokio::spawn(async move { subscribing.subscribe(REVOCATIONS).await });
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purged = Instant::now();
    let mut bus_alive = true;
    loop {
        let notice = tokio::select! {
            notice = notices.next(), if bus_alive => notice,
            _ = tick.tick() => Some(Notice::Up),
        };
        let Some(revocations) = revocations.upgrade().map(Revocations) else { return };
        match notice {
            Some(Notice::Message { payload, .. }) => revocations.hear(&payload),
            Some(Notice::Down) => {}
            None => bus_alive = false,
            Some(Notice::Up) => match revocations.catch_up().await {
                Ok(()) => loaded.set(true),
                Err(error) => tracing::debug!(%error, "cannot read revocations"),
            },
        }
        if purged.elapsed() > PURGE_EVERY {
            revocations.purge();
            purged = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::testing::{bus, eventually, fake};
    use confab_proto::auth::v1::ListRevocationsResponse;

    /// An auth service whose newest revocation is `head` and that returns two revocations per page.
    fn auth(head: Arc<AtomicU64>) -> AuthServiceClient<Transport> {
        AuthServiceClient::new(fake(move |_, body| {
            let after = ListRevocationsRequest::decode(body).unwrap().after;
            let head = head.load(Ordering::Relaxed);
            let revocations = (after + 1..=head).take(2).map(revocation).collect();
            Ok(ListRevocationsResponse { revocations, head }.encode_to_vec())
        }))
    }

    fn id(number: u64) -> Uuid {
        Uuid::from_u128(number.into())
    }

    fn revocation(number: u64) -> Revocation {
        Revocation { number, session_id: id(number).to_string(), expires_at_ms: i64::MAX }
    }

    #[tokio::test]
    async fn reads_all_pages_then_follows_hints_and_polls() {
        let (head, bus, process) = (Arc::new(AtomicU64::new(5)), bus(), Process::new());
        let revocations = Revocations::start(auth(head.clone()), &bus, &process);
        process.readiness.started();
        eventually(|| process.readiness.missing().is_none()).await;
        assert!((1..=5).all(|n| revocations.is_revoked(id(n))) && !revocations.is_revoked(id(6)));

        let mut news = revocations.subscribe();
        bus.publish(REVOCATIONS, revocation(9).encode_to_vec());
        bus.publish(REVOCATIONS, &b"garbage"[..]);
        bus.publish(REVOCATIONS, Revocation { session_id: "s8".into(), ..revocation(8) }.encode_to_vec());
        assert_eq!(news.recv().await.unwrap(), id(9));
        // The hint arrived before its predecessors, which are still read; the sign-in is announced once.
        head.store(9, Ordering::Relaxed);
        for n in 6..=8 {
            assert_eq!(news.recv().await.unwrap(), id(n));
        }
        revocations.catch_up().await.unwrap();
        assert!(news.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_restored_auth_is_read_from_the_beginning() {
        let head = Arc::new(AtomicU64::new(5));
        let revocations = Revocations::start(auth(head.clone()), &bus(), &Process::new());
        revocations.catch_up().await.unwrap();
        head.store(2, Ordering::Relaxed);
        revocations.catch_up().await.unwrap();
        head.store(6, Ordering::Relaxed);
        revocations.catch_up().await.unwrap();
        assert!(revocations.is_revoked(id(5)) && revocations.is_revoked(id(6)));
    }

    #[tokio::test]
    async fn a_malformed_id_is_skipped() {
        let ids = ["", "s1", "'; --", "00000000-0000-0000-0000-00000000000g", &"x".repeat(100_000)].map(str::to_owned);
        let count = ids.len() as u64;
        let auth = fake(move |_, body| {
            let after = ListRevocationsRequest::decode(body).unwrap().after;
            let listed = (after + 1..=count + 1).take(2);
            let revocations = listed.map(|number| match ids.get(number as usize - 1) {
                Some(session_id) => Revocation { session_id: session_id.clone(), ..revocation(number) },
                None => revocation(number),
            });
            Ok(ListRevocationsResponse { revocations: revocations.collect(), head: count + 1 }.encode_to_vec())
        });
        let revocations = Revocations::start(AuthServiceClient::new(auth), &bus(), &Process::new());
        revocations.catch_up().await.unwrap();
        assert!(revocations.is_revoked(id(count + 1)));
        assert_eq!(revocations.0.sessions.read().len(), 1);
    }

    #[tokio::test]
    async fn expired_revocations_are_purged() {
        let revocations = Revocations::start(auth(Arc::default()), &bus(), &Process::new());
        revocations.add(id(1), 1);
        revocations.add(id(2), i64::MAX);
        revocations.purge();
        assert!(!revocations.is_revoked(id(1)) && revocations.is_revoked(id(2)));
    }
}
