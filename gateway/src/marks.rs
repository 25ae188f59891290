//! Read markers: the gateway collects the marks of its clients, moves the markers once a second in one call, and announces
//! the moved markers to all gateways.
//!
//! An announcement may be lost. The client then learns of the marker with its next mark or request.

mod pending;

use std::sync::Arc;
use std::time::Duration;

use confab_common::bus::{self, Bus, Notice, Notices, Subscriptions};
use confab_common::grpc::{self, Call};
use confab_common::{Code, Error, Result};
use confab_identity::credential::{self, Credential, message_credential};
use confab_proto::channel::MARKS;
use confab_proto::message::v1::{
    self as message, Mark, MarkOutcome, MarkReadRequest, Marked, MovedMarker, MovedMarkers, mark_outcome,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::clients::Clients;
use pending::{Key, Pending, Waiting};

/// Most marks in one call.
const BATCH: usize = 1024;
/// The interval between two calls, unless more marks wait than one call can take.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the mark of an author is tried.
const OF_AUTHOR: Duration = Duration::from_secs(30);
/// Announcements that wait for the clients of this gateway; older ones are dropped.
const ANNOUNCED: usize = 64;

/// The marks of this gateway's clients.
pub struct Marks {
    // Locked for a look-up or a change, never across an await.
    pending: Mutex<Pending>,
    added: Notify,
    clients: Clients,
    bus: Bus,
    /// Identifies this process in announcements.
    origin: String,
    announced: broadcast::Sender<Arc<[MovedMarker]>>,
    /// Most members of a room with read receipts.
    receipts_max_members: u32,
}

/// A mark whose marker has not moved yet.
pub struct Marking {
    answer: oneshot::Receiver<Result<Marked>>,
    until: Instant,
}

impl Marking {
    /// Waits for the marker that stands.
    ///
    /// # Errors
    /// `forbidden` for a user who is not a member of the room; `unavailable` when the message service does not answer.
    pub async fn outcome(self) -> Result<Marked> {
        match timeout_at(self.until, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(Error::unavailable("the message service")),
        }
    }
}

impl Marks {
    /// Starts to move markers, and to listen for those that other gateways have moved.
    pub fn start(clients: Clients, bus: &Bus, receipts_max_members: u32) -> Arc<Self> {
        let marks = Arc::new(Self {
            pending: Mutex::default(),
            added: Notify::new(),
            clients,
            bus: bus.clone(),
            origin: Uuid::now_v7().to_string(),
            announced: broadcast::channel(ANNOUNCED).0,
            receipts_max_members,
        });
        tokio::spawn(marks.clone().flush());
        let (subscriptions, notices) = bus.listen();
        tokio::spawn(marks.clone().listen(subscriptions, notices));
        marks
    }

    /// The markers that any gateway has moved from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[MovedMarker]>> {
        self.announced.subscribe()
    }

    pub fn receipts_max_members(&self) -> u32 {
        self.receipts_max_members
    }

    /// Queues a mark: the user has read the room up to this `seq`.
    ///
    /// # Errors
    /// `rate_limited` for a user with too many marks that wait; `unavailable` when too many marks of all users wait.
    pub fn begin(&self, room: Uuid, user: Uuid, seq: u64, credential: Credential) -> Result<Marking> {
        let (sender, answer) = oneshot::channel();
        let until = Instant::now() + self.clients.call.deadline;
        self.pending.lock().add((room, user), Waiting::new(seq, credential, until, Some(sender)))?;
        self.added.notify_one();
        Ok(Marking { answer, until })
    }

    /// Queues the mark of the author of a message that was appended as this `seq`. A server key does not read.
    pub fn authored(&self, room: Uuid, author: Uuid, seq: u64, credential: &Credential) {
        if credential.is_key() {
            return;
        }
        let waiting = Waiting::new(seq, credential.clone(), Instant::now() + OF_AUTHOR, None);
        // Beyond the limits, the marker moves with the next mark.
        if self.pending.lock().add((room, author), waiting).is_ok() {
            self.added.notify_one();
        }
    }

    /// Moves a marker to this `seq` at once, also backwards.
    ///
    /// # Errors
    /// As [`Marking::outcome`].
    pub async fn move_back(&self, room: Uuid, user: Uuid, seq: u64, credential: &Credential) -> Result<Marked> {
        let mark = Mark { back: true, ..mark((room, user), seq) };
        let request = self.request(vec![mark], Vec::new());
        let call = credential.attach(grpc::request(request, self.clients.call));
        let answer = self.clients.message.clone().mark_read(call).await?.into_inner();
        let marked = answer.outcomes.into_iter().next().map_or_else(|| Err(Error::timeout()), outcome)?;
        self.announce(vec![moved((room, user), &marked)]);
        Ok(marked)
    }

    fn request(&self, marks: Vec<Mark>, credentials: Vec<message::Credential>) -> MarkReadRequest {
        MarkReadRequest { marks, credentials, receipts_max_members: self.receipts_max_members }
    }

    async fn flush(self: Arc<Self>) {
        loop {
            self.added.notified().await;
            loop {
                let started = Instant::now();
                let (batch, more) = self.pending.lock().take(BATCH, started);
                if batch.is_empty() {
                    break;
                }
                let failed = self.move_all(batch).await;
                if !more || failed {
                    sleep_until(started + INTERVAL).await;
                }
            }
        }
    }

    /// Moves markers, and answers their marks. Marks that can be repeated wait again; returns whether there were any.
    async fn move_all(&self, batch: Vec<(Key, Waiting)>) -> bool {
        let (unknown, mut failed) = self.move_once(batch, false).await;
        if !unknown.is_empty() {
            let (unknown, failed_again) = self.move_once(unknown, true).await;
            failed |= failed_again || !unknown.is_empty();
            self.put_back(unknown);
        }
        failed
    }

    /// Moves markers, with the credentials of their users or with their digests alone. Returns the marks whose
    /// credentials the service does not know, and whether marks wait again.
    async fn move_once(&self, batch: Vec<(Key, Waiting)>, with_credentials: bool) -> (Vec<(Key, Waiting)>, bool) {
        let now = Instant::now();
        let to_mark = |(key, waiting): &(Key, Waiting)| Mark {
            age_ms: u32::try_from((now - waiting.arrived).as_millis()).unwrap_or(u32::MAX),
            credential: waiting.credential.digest().map_or_else(Vec::new, Vec::from),
            ..mark(*key, waiting.seq)
        };
        let credentials = if with_credentials { credentials(&batch) } else { Vec::new() };
        let request = self.request(batch.iter().map(to_mark).collect(), credentials);
        let longest = batch.iter().map(|(_, waiting)| waiting.until).max().unwrap_or(now) - now;
        let call = Call::within(longest.min(self.clients.call.deadline)).attempt(Duration::from_secs(1));
        let answer = self.clients.message.clone().mark_read(grpc::request(request, call)).await;
        let outcomes = match answer {
            Ok(answer) => answer.into_inner().outcomes,
            Err(status) => {
                let error = Error::from(status);
                if matches!(error.code, Code::Unavailable | Code::Timeout) {
                    self.put_back(batch);
                    return (Vec::new(), true);
                }
                batch.into_iter().for_each(|(_, waiting)| waiting.answer(&Err(error.clone())));
                return (Vec::new(), false);
            }
        };
        let (mut unknown, mut again, mut moved_markers) = (Vec::new(), Vec::new(), Vec::new());
        for ((key, waiting), answered) in batch.into_iter().zip(outcomes) {
            if is_unknown(&answered) {
                unknown.push((key, waiting));
                continue;
            }
            match outcome(answered) {
                Err(error) if error.code == Code::Unavailable => again.push((key, waiting)),
                outcome => {
                    if let Ok(marked) = &outcome
                        && marked.moved
                        && waiting.is_news(marked)
                    {
                        moved_markers.push(moved(key, marked));
                    }
                    waiting.answer(&outcome);
                }
            }
        }
        self.announce(moved_markers);
        let waits_again = !again.is_empty();
        self.put_back(again);
        (unknown, waits_again)
    }

    fn put_back(&self, marks: Vec<(Key, Waiting)>) {
        let (mut pending, now) = (self.pending.lock(), Instant::now());
        for (key, waiting) in marks.into_iter().filter(|(_, waiting)| waiting.until > now) {
            // Its place is free, unless others have taken it meanwhile: then it is answered when it is dropped.
            let _ = pending.add(key, waiting);
        }
    }

    fn announce(&self, markers: Vec<MovedMarker>) {
        if markers.is_empty() {
            return;
        }
        let announcement = MovedMarkers { origin: self.origin.clone(), markers };
        self.bus.publish(MARKS, announcement.encode_to_vec());
        // Without a subscriber there is no client yet.
        let _ = self.announced.send(announcement.markers.into());
    }

    async fn listen(self: Arc<Self>, subscriptions: Subscriptions, mut notices: Notices) {
        let hear = async {
            while let Some(notice) = notices.next().await {
                if let Notice::Message { payload, .. } = notice {
                    self.receive(&payload);
                }
            }
        };
        // Confirmed when the bus is connected.
        tokio::join!(subscriptions.subscribe(MARKS), hear);
    }

    fn receive(&self, payload: &[u8]) {
        match MovedMarkers::decode(payload) {
            Ok(announcement) if announcement.origin == self.origin => {}
            Ok(announcement) if is_plausible(&announcement) => {
                let _ = self.announced.send(announcement.markers.into());
            }
            _ => bus::dropped("malformed", 1),
        }
    }
}

/// Whether an announcement is plausible. Without a cluster key, any program that reaches the bus can publish one.
fn is_plausible(announcement: &MovedMarkers) -> bool {
    let has_ids = |marker: &MovedMarker| marker.room_id.len() == 16 && marker.user_id.len() == 16;
    announcement.markers.len() <= BATCH && announcement.markers.iter().all(has_ids)
}

fn mark((room, user): Key, seq: u64) -> Mark {
    Mark { room_id: room.to_string(), user_id: user.to_string(), seq, ..Mark::default() }
}

fn moved((room, user): Key, marked: &Marked) -> MovedMarker {
    MovedMarker {
        room_id: room.as_bytes().to_vec(),
        user_id: user.as_bytes().to_vec(),
        seq: marked.seq,
        at_ms: marked.at_ms.unwrap_or_default(),
        unread: marked.unread,
        has_receipts: marked.has_receipts,
    }
}

/// The credentials of these marks, each once.
fn credentials(batch: &[(Key, Waiting)]) -> Vec<message::Credential> {
    let mut credentials: Vec<_> = batch
        .iter()
        .map(|(_, waiting)| &waiting.credential)
        .filter(|credential| credential.digest().is_some())
        .collect();
    credentials.sort_unstable_by_key(|credential| credential.digest());
    credentials.dedup_by_key(|credential| credential.digest());
    credentials.into_iter().map(message_credential).collect()
}

fn is_unknown(outcome: &MarkOutcome) -> bool {
    matches!(&outcome.result, Some(mark_outcome::Result::Refusal(refusal)) if refusal.code == credential::UNKNOWN)
}

fn outcome(outcome: MarkOutcome) -> Result<Marked> {
    match outcome.result {
        Some(mark_outcome::Result::Marked(marked)) => Ok(marked),
        Some(mark_outcome::Result::Refusal(refusal)) => match Code::parse(&refusal.code).unwrap_or(Code::Internal) {
            Code::Unavailable => Err(Error::unavailable("the message service")),
            code => Err(Error::new(code, refusal.detail)),
        },
        None => Err(Error::internal("a mark without an outcome")),
    }
}

#[cfg(test)]
mod tests;
