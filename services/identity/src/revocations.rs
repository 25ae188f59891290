//! The tokens that have ended before their expiry. The program reads them from auth every second and receives hints on
//! the bus in between.
//!
//! Auth numbers revocations without gaps, so every missed revocation is above the highest number read.

mod ended;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use confab_common::bus::{self, Bus, Notice, Notices, Subscriptions};
use confab_common::clock::now_ms;
use confab_common::grpc::{Call, Transport, request};
use confab_common::metrics::at_scrape;
use confab_common::process::Process;
use confab_common::readiness::Condition;
use confab_common::standstill::PauseDetector;
use confab_common::{Error, Result, failpoint};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{ListRevocationsRequest, Revocation, RevocationKind};
use confab_proto::channel::REVOCATIONS;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use crate::deleted::DeletedUsers;
use crate::metrics::METRICS;
use crate::sign_in::SignIn;
use confab_common::seldom::Seldom;

pub use ended::{Block, Cause, Revoked};

use ended::{Ended, Taken};

/// Interval between two reads from auth, in addition to hints.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500));
/// After a pause of the process: how long a caller waits until the revocations are up to date.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How often a waiting caller checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Interval between two purges of expired revocations.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// The revoked tokens; clones share them.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    auth: AuthServiceClient<Transport>,
    // Each lock is held for one look-up or insertion, never across an await.
    ended: RwLock<Ended>,
    deleted: DeletedUsers,
    followers: Mutex<Vec<mpsc::UnboundedSender<Revoked>>>,
    /// When the list was last read to its end; before the first read, when the process started.
    read: Mutex<Instant>,
    /// When the last complete read began.
    begun: Mutex<Option<Instant>>,
    /// Whether a blocked user is looked up again.
    reads_again: bool,
    /// The highest number read. Locked during a read, so that there is one reader at a time.
    position: tokio::sync::Mutex<u64>,
    /// Whether the whole list was read once. Before that, a revoked token would be accepted.
    is_loaded: AtomicBool,
    incomplete: Seldom,
    pauses: Arc<PauseDetector>,
}

impl Revocations {
    /// Starts following auth's list. The process is not ready until the whole list was read once.
    pub fn start(auth: AuthServiceClient<Transport>, bus: &Bus, process: &Process) -> Self {
        Self::follow(auth, Some(bus), Some(process.readiness.condition("revocations")))
    }

    /// As [`start`](Self::start), in a service: the process is ready without the list, because calls of other services
    /// do not need it.
    pub fn in_service(auth: AuthServiceClient<Transport>, bus: Option<&Bus>) -> Self {
        Self::follow(auth, bus, None)
    }

    fn follow(auth: AuthServiceClient<Transport>, bus: Option<&Bus>, loaded: Option<Condition>) -> Self {
        let revocations = Self(Arc::new(Inner {
            auth,
            ended: RwLock::default(),
            deleted: DeletedUsers::default(),
            followers: Mutex::default(),
            read: Mutex::new(Instant::now()),
            begun: Mutex::default(),
            reads_again: loaded.is_none(),
            position: tokio::sync::Mutex::default(),
            is_loaded: AtomicBool::new(false),
            incomplete: Seldom::default(),
            pauses: Arc::default(),
        }));
        LazyLock::force(&METRICS);
        let measured = Arc::downgrade(&revocations.0);
        at_scrape(move || measured.upgrade().iter().for_each(|inner| inner.measure()));
        tokio::spawn(follow(Arc::downgrade(&revocations.0), bus.map(Bus::listen), loaded));
        revocations
    }

    /// Detects pauses of the process, during which hints may have been missed.
    pub fn pauses(&self) -> &Arc<PauseDetector> {
        &self.0.pauses
    }

    /// Whether the revocations are up to date.
    pub fn is_known(&self) -> bool {
        self.0.is_loaded.load(Ordering::Acquire) && !self.0.pauses.is_paused()
    }

    /// Completes when the revocations are up to date: at start and after a pause of the process, once auth has answered.
    ///
    /// # Errors
    /// `unavailable` when auth does not answer within 2 s.
    pub async fn known(&self) -> Result<()> {
        if self.is_known() {
            return Ok(());
        }
        let known = async {
            while !self.is_known() {
                sleep(CHECK_INTERVAL).await;
            }
        };
        timeout(KNOWN_WITHIN, known).await.map_err(|_| Error::unavailable("the list of revocations"))
    }

    /// Why a token of this user was revoked, or `None` when it was not.
    pub fn cause(&self, user_id: Uuid, sign_in: SignIn) -> Option<Cause> {
        self.0.ended.read().cause(user_id, sign_in)
    }

    /// Whether all tokens of a user are rejected, and why.
    pub fn block(&self, user_id: Uuid) -> Option<Block> {
        self.0.ended.read().block(user_id)
    }

    /// As [`block`](Self::block). Before a user counts as blocked, a service reads the list again: only the gateway that
    /// has ended a suspension knows so at once.
    pub async fn block_now(&self, user_id: Uuid) -> Option<Block> {
        let block = self.block(user_id)?;
        if !self.0.reads_again || self.catch_up_from(Instant::now()).await.is_err() {
            return Some(block);
        }
        self.block(user_id)
    }

    /// The users whose accounts are deleted.
    pub fn deleted(&self) -> &DeletedUsers {
        &self.0.deleted
    }

    /// Receives the revocations from now on, each once. A caller must register a socket before it checks
    /// [`Revocations::cause`], so that no revocation falls between the two.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Revoked> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.followers.lock().push(sender);
        receiver
    }

    /// Adds the revocation of a session that this program requested itself. `expires_at_ms`: expiry of the token, in ms
    /// since the Unix epoch.
    pub fn add(&self, session_id: Uuid, expires_at_ms: i64) {
        if failpoint!("skip-revocations") {
            return;
        }
        let taken = self.0.ended.write().end_session(session_id, expires_at_ms);
        self.announce(taken);
    }

    /// Adds revocations that this program requested itself.
    pub fn add_all(&self, revocations: &[Revocation]) {
        revocations.iter().for_each(|revocation| _ = self.take(revocation));
    }

    /// Reads new revocations now.
    ///
    /// # Errors
    /// When auth does not answer. The revocations read until then are kept.
    pub async fn catch_up(&self) -> Result<()> {
        self.catch_up_from(Instant::now()).await
    }

    /// Reads new revocations, unless another task has done so in a read that began after this moment.
    async fn catch_up_from(&self, moment: Instant) -> Result<()> {
        let mut position = self.0.position.lock().await;
        if self.0.begun.lock().is_some_and(|begun| begun > moment) {
            return Ok(());
        }
        let begun = Instant::now();
        // After an incomplete entry, the reader goes on, but the position stays below that entry.
        let (mut after, mut incomplete) = (*position, false);
        loop {
            let ask = request(ListRevocationsRequest { after, limit: 0 }, ASK);
            let page = self.0.auth.clone().list_revocations(ask).await?.into_inner();
            if page.head < after {
                tracing::warn!(
                    head = page.head,
                    position = after,
                    "auth was restored to an older state; reading all revocations again"
                );
                self.0.ended.write().renumber();
                (*position, after, incomplete) = (0, 0, false);
                continue;
            }
            let mut malformed = 0_u64;
            for revocation in &page.revocations {
                after = revocation.number.max(after);
                match self.take(revocation) {
                    Taken::Malformed => malformed += 1,
                    Taken::Incomplete => incomplete = true,
                    Taken::News(_) | Taken::Known => {}
                }
                if !incomplete {
                    *position = after;
                }
            }
            if malformed > 0 {
                tracing::error!(malformed, below = after, "skipped revocations whose id is not a UUID");
            }
            if page.revocations.is_empty() || after >= page.head {
                if incomplete && self.0.incomplete.is_due() {
                    tracing::warn!(
                        "a replica of auth is older than its database; reading revocations from another one"
                    );
                }
                *self.0.read.lock() = Instant::now();
                *self.0.begun.lock() = Some(begun);
                if !incomplete {
                    self.0.is_loaded.store(true, Ordering::Release);
                }
                return Ok(());
            }
        }
    }

    /// Handles a hint. A hint does not advance the position, because earlier hints may have been lost.
    fn receive(&self, payload: &[u8]) {
        match Revocation::decode(payload).map(|revocation| self.take(&revocation)) {
            Ok(Taken::News(_) | Taken::Known) => {}
            _ => bus::dropped("malformed", 1),
        }
    }

    fn take(&self, revocation: &Revocation) -> Taken {
        if failpoint!("skip-revocations") {
            return Taken::Known;
        }
        let taken = {
            let mut ended = self.0.ended.write();
            let taken = ended.take(revocation);
            // Under the lock, so that the order of the entries is the same for both.
            if matches!(revocation.kind(), RevocationKind::Blocked | RevocationKind::Unblocked)
                && let Ok(user_id) = revocation.user_id.parse()
            {
                self.0.deleted.set(user_id, ended.block(user_id) == Some(Block::Deleted));
            }
            taken
        };
        self.announce(taken);
        taken
    }

    /// Announces a revocation after it has been added.
    fn announce(&self, taken: Taken) {
        if let Taken::News(revoked) = taken {
            self.0.followers.lock().retain(|follower| follower.send(revoked).is_ok());
        }
    }
}

impl Inner {
    fn measure(&self) {
        let ended = self.ended.read();
        METRICS.revocations.set((ended.sessions() + ended.cuts()) as f64);
        METRICS.blocked_users.set(ended.blocked() as f64);
        drop(ended);
        METRICS.revocations_age.set(self.read.lock().elapsed().as_secs_f64());
    }
}

/// Follows auth's list until all clones of the revocations are dropped.
async fn follow(revocations: Weak<Inner>, hints: Option<(Subscriptions, Notices)>, loaded: Option<Condition>) {
    let (subscriptions, mut notices) = hints.unzip();
    if let Some(subscriptions) = subscriptions.clone() {
        // While the bus is down, the confirmation does not arrive; no task waits for it.
        tokio::spawn(async move { subscriptions.subscribe(REVOCATIONS).await });
    }
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purged = Instant::now();
    loop {
        let notice = tokio::select! {
            notice = next(&mut notices) => notice,
            _ = tick.tick() => Some(Notice::Up),
        };
        let Some(revocations) = revocations.upgrade().map(Revocations) else { return };
        match notice {
            Some(Notice::Message { payload, .. }) => revocations.receive(&payload),
            Some(Notice::Down) => {}
            None => notices = None,
            Some(Notice::Up) => match revocations.catch_up().await {
                Ok(()) => loaded.iter().for_each(|loaded| loaded.set(true)),
                Err(error) => tracing::debug!(%error, "cannot read revocations"),
            },
        }
        if purged.elapsed() > PURGE_EVERY {
            revocations.0.ended.write().purge(now_ms());
            purged = Instant::now();
        }
    }
}

/// The next notice of the bus; never without a bus.
async fn next(notices: &mut Option<Notices>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
