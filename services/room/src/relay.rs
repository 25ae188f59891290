//! Relays the outbox to the log: opens each room, and appends each event until the log has answered it.
//!
//! Any number of replicas may relay one room at once, without a lock. Each takes the *oldest* events of a room, sends
//! them in their order in one append, and removes those that are in the log. The log appends the events of one room in
//! the order of the request, and none after one that it could not append. Therefore a later event is never in the log
//! before an earlier one. An access event ends what one append has of its room: the log needs a transaction of its own
//! for what follows. If an event is sent a second time, the log recognises its id as a repeat, and nothing changes.
//! Within a replica, the calls for one room take turns, so that they do not all send the same events.
//!
//! The log opens a room in its state at that time, which may include changes whose events follow. To apply such a
//! change again is harmless, and the last event decides. When the log opens a room again, because it was restored to an
//! older state, the room's events wait until it has all members. So the events of changes that were made while the
//! members were read follow after that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use confab_common::outbox::{self, BATCH, Swept};
use confab_common::{Code, Result};
use confab_proto::message::v1::outcome;
use futures::future::join_all;
use tokio::time::sleep;
use uuid::Uuid;

use crate::lanes::Lanes;
use crate::log::{LastTimes, Log, Opened, new_event};
use crate::store::{MAX_OPENING_MEMBERS, Opening, Owed, RoomEvent, Store};

/// How many rooms the sweep opens at once.
const OPENINGS_AT_ONCE: u32 = 16;
/// Maximum events of one room in an append of the sweep, which has the events of up to [`BATCH`] rooms.
const EVENTS_OF_ROOM: u32 = 8;

/// How often the log's epoch is compared with the recorded one.
const CHECK_EPOCH_EVERY: Duration = Duration::from_secs(5);
/// Rooms per statement that records that they must be opened again.
const REOPENED_AT_ONCE: u32 = 2000;

/// Relays events from the outbox to the log.
pub struct Relay {
    store: Arc<dyn Store>,
    log: Log,
    lanes: Lanes,
}

impl Relay {
    pub fn new(store: Arc<dyn Store>, log: Log) -> Self {
        Self { store, log, lanes: Lanes::default() }
    }

    /// Returns whether the log has private rooms and members.
    pub async fn has_members(&self) -> Result<bool> {
        self.log.has_members().await
    }

    /// Returns when the newest events of rooms were appended, like [`Log::last_times`].
    pub async fn last_times(&self, rooms: &[Uuid], until_ms: i64) -> Result<Option<HashMap<Uuid, LastTimes>>> {
        self.log.last_times(rooms, until_ms).await
    }

    /// Relays a room's events up to `number`, and returns when all of them are in the log, without a time limit. May be
    /// dropped at any time: the sweep relays the rest.
    pub async fn relay(&self, room: Uuid, number: i64) {
        outbox::deliver(|| async {
            let _lane = self.lanes.enter(room).await;
            let advanced = self.advance(room, number).await;
            let advanced = advanced.inspect_err(|error| tracing::debug!(%room, %error, "an event waits for the log"));
            advanced.unwrap_or(false).then_some(())
        })
        .await;
    }

    /// Returns when the log has opened a room, or needs no opening yet, without a time limit. May be dropped at any
    /// time: the sweep opens the room.
    pub async fn opened(&self, room: Uuid) {
        outbox::deliver(|| async {
            let opened = self.open(room).await;
            opened.inspect_err(|error| tracing::debug!(%room, %error, "a room waits for the log")).ok()
        })
        .await;
    }

    /// Relays a room's events up to `number` as far as possible now. Returns whether all of them are in the log.
    async fn advance(&self, room: Uuid, number: i64) -> Result<bool> {
        loop {
            let owed = self.store.oldest(room, BATCH).await?;
            let Some(first) = owed.first().filter(|first| first.event.number <= number) else { return Ok(true) };
            if first.unopened {
                self.open(room).await?;
            }
            if self.append(&runs(&owed)).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Opens a room, unless it is open.
    async fn open(&self, room: Uuid) -> Result<Opened> {
        let Some(opening) = self.store.opening(room).await? else { return Ok(Opened::Now) };
        let epoch = opening.epoch;
        let opened = if opening.more && epoch.is_some() {
            self.open_in_pages(room, opening).await?
        } else {
            // At the first opening, the outbox has the event of each member except the creator.
            self.log.open(room, opening).await?
        };
        if opened == Opened::Now {
            self.store.remove_opening(room, epoch).await?;
        }
        Ok(opened)
    }

    /// Opens a room with more members than one call to the log.
    async fn open_in_pages(&self, room: Uuid, opening: Opening) -> Result<Opened> {
        let mut after = Uuid::nil();
        loop {
            let mut members = self.store.members_by_id(room, after, MAX_OPENING_MEMBERS + 1).await?;
            let more = members.len() > MAX_OPENING_MEMBERS as usize;
            members.truncate(MAX_OPENING_MEMBERS as usize);
            let last = members.last().map(|(user, _)| *user).filter(|_| more);
            let opened = self.log.open(room, Opening { members, more, ..opening }).await?;
            match last {
                Some(last) if opened == Opened::Now => after = last,
                _ => return Ok(opened),
            }
        }
    }

    /// Opens rooms, a few at once. Returns the outcomes in their order.
    async fn open_all(&self, rooms: &[Uuid]) -> Vec<Result<Opened>> {
        let mut outcomes = Vec::with_capacity(rooms.len());
        for rooms in rooms.chunks(OPENINGS_AT_ONCE as usize) {
            outcomes.extend(join_all(rooms.iter().map(|room| self.open(*room))).await);
        }
        outcomes
    }

    /// Sweeps the outbox without end: at start the events and rooms of an earlier process, later those of calls that
    /// gave up. After a migration, all rooms must be opened; the events of other rooms do not wait for that.
    pub async fn run(self: Arc<Self>) {
        let sweeps = (outbox::sweep(|| self.sweep_openings()), outbox::sweep(|| self.sweep_events()));
        tokio::join!(sweeps.0, sweeps.1, self.follow_epoch());
    }

    /// Opens all rooms again whenever the log has a new epoch: its database was restored to an older state, which may
    /// lack rooms and changes of members.
    async fn follow_epoch(&self) {
        loop {
            if let Err(error) = self.check_epoch().await {
                tracing::debug!(%error, "cannot compare the log's epoch");
            }
            sleep(CHECK_EPOCH_EVERY).await;
        }
    }

    async fn check_epoch(&self) -> Result<()> {
        let (Some(epoch), known) = (self.log.epoch().await?, self.store.log_epoch().await?) else { return Ok(()) };
        if known.is_some_and(|known| known >= epoch) {
            return Ok(());
        }
        if known.is_some() {
            tracing::warn!(%epoch, "the log has a new epoch; all rooms and their members are sent to it again");
            let mut after = Uuid::nil();
            while let Some(last) = self.store.reopen(epoch, after, REOPENED_AT_ONCE).await? {
                after = last;
            }
        }
        self.store.record_epoch(epoch).await
    }

    /// Tries to open every room once. Ends early when the log opens none of several rooms.
    async fn sweep_openings(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = Uuid::nil();
        loop {
            let page = self.store.unopened(after, OPENINGS_AT_ONCE).await?;
            let Some(last) = page.last() else {
                if after.is_nil() {
                    self.log.all_opened().await?;
                }
                return Ok(swept);
            };
            after = *last;
            let outcomes = self.open_all(&page).await;
            let opened = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Opened::Now))).count();
            // A room that the log will open after its upgrade is no reason for a warning.
            swept.found += outcomes.iter().filter(|outcome| !matches!(outcome, Ok(Opened::Later))).count();
            swept.relayed += opened;
            if let Some(error) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                tracing::debug!(%error, "rooms wait for the log");
            }
            if opened == 0 {
                return Ok(swept);
            }
        }
    }

    /// Tries the oldest events of every room once.
    async fn sweep_events(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = Uuid::nil();
        loop {
            let page = self.store.oldest_of_rooms(after, BATCH, EVENTS_OF_ROOM).await?;
            let Some(last) = page.last() else { return Ok(swept) };
            after = last.event.room_id;
            let runs = runs(&page);
            swept.found += runs.len();
            swept.relayed += self.append(&self.ready(runs).await).await?;
        }
    }

    /// Opens the rooms of events. Returns the events that the log can append now.
    async fn ready<'a>(&self, owed: Vec<&'a Owed>) -> Vec<&'a Owed> {
        let mut rooms = owed.iter().filter(|owed| owed.unopened).map(|owed| owed.event.room_id).collect::<Vec<_>>();
        rooms.dedup();
        let outcomes = self.open_all(&rooms).await;
        let failed = rooms.into_iter().zip(outcomes).filter(|(_, opened)| opened.is_err());
        let failed = failed.map(|(room, _)| room).collect::<HashSet<_>>();
        owed.into_iter().filter(|owed| !failed.contains(&owed.event.room_id)).collect()
    }

    /// Appends events, and deletes those that need no further attempt. Returns their number.
    async fn append(&self, owed: &[&Owed]) -> Result<usize> {
        let (owed, events): (Vec<_>, Vec<_>) = owed
            .iter()
            .filter_map(|owed| match new_event(&owed.event) {
                Ok(event) => Some((*owed, event)),
                Err(error) => {
                    tracing::error!(id = %owed.event.id, room = %owed.event.room_id, %error, "cannot read an event");
                    None
                }
            })
            .unzip();
        if events.is_empty() {
            return Ok(0);
        }
        let outcomes = self.log.append(events).await?;
        let relayed = owed
            .into_iter()
            .zip(outcomes)
            .filter(|(owed, outcome)| is_done(owed, outcome.result.as_ref()))
            .map(|(owed, _)| owed.event.id)
            .collect::<Vec<_>>();
        if !relayed.is_empty() {
            self.store.remove_events(relayed.clone()).await?;
        }
        Ok(relayed.len())
    }
}

/// Returns the events that one append may have: those of each room up to its first access event. The events of a room
/// are adjacent, in their order.
fn runs(owed: &[Owed]) -> Vec<&Owed> {
    let mut ended = None;
    let mut runs = Vec::with_capacity(owed.len());
    for owed in owed.iter() {
        if ended == Some(owed.event.room_id) {
            continue;
        }
        if owed.event.access.is_some() {
            ended = Some(owed.event.room_id);
        }
        runs.push(owed);
    }
    runs
}

/// Returns whether an event needs no further attempt: it is in the log, or can never be.
fn is_done(owed: &Owed, result: Option<&outcome::Result>) -> bool {
    let RoomEvent { id, room_id, event, .. } = &owed.event;
    let refusal = match result {
        Some(outcome::Result::Event(_)) => return true,
        Some(outcome::Result::Refusal(refusal)) => refusal,
        None => return false,
    };
    // A closed log accepts no events, and no client can read it. But an existing room's event is never abandoned.
    let closed = matches!(Code::parse(&refusal.code), Some(Code::NotFound | Code::Conflict));
    let relayed = owed.room_gone && closed;
    let (code, detail) = (&refusal.code, &refusal.detail);
    tracing::warn!(%id, room = %room_id, event, code, detail, dropped = relayed, "the log rejected an event");
    relayed
}
