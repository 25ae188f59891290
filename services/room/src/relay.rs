//! Relays the outbox to the log: opens each room, and appends each event until the log has answered it.
//!
//! Any number of replicas may relay one room at once, without a lock. Each takes only the *oldest* event of a room,
//! removes it after it is in the log, and only then takes the next. Therefore a later event is never sent before an
//! earlier event is in the log. If an event is sent a second time, the log recognises its id as a repeat, and nothing
//! changes. Within a replica, the calls for one room take turns, so that they do not all send the same event.
//!
//! The log opens a room in its state at that time, which may include changes whose events follow. To apply such a
//! change again is harmless, and the last event decides.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::outbox::{self, BATCH, Swept};
use confab_common::{Code, Result};
use confab_proto::message::v1::outcome;
use futures::future::join_all;
use uuid::Uuid;

use crate::lanes::Lanes;
use crate::log::{LastTimes, Log, Opened, new_event};
use crate::store::{Owed, RoomEvent, Store};

/// How many rooms the sweep opens at once.
const OPENINGS_AT_ONCE: u32 = 16;

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
            match self.store.oldest(room).await? {
                Some(owed) if owed.event.number <= number => {
                    if owed.unopened {
                        self.open(room).await?;
                    }
                    if self.append(&[&owed]).await? == 0 {
                        return Ok(false);
                    }
                }
                _ => return Ok(true),
            }
        }
    }

    /// Opens a room, unless it is open.
    async fn open(&self, room: Uuid) -> Result<Opened> {
        let Some(opening) = self.store.opening(room).await? else { return Ok(Opened::Now) };
        let opened = self.log.open(room, opening).await?;
        if opened == Opened::Now {
            self.store.remove_opening(room).await?;
        }
        Ok(opened)
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
        tokio::join!(outbox::sweep(|| self.sweep_openings()), outbox::sweep(|| self.sweep_events()));
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

    /// Tries the oldest event of every room once.
    async fn sweep_events(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = Uuid::nil();
        loop {
            let page = self.store.oldest_of_rooms(after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(swept) };
            after = last.event.room_id;
            swept.found += page.len();
            swept.relayed += self.append(&self.ready(&page).await).await?;
        }
    }

    /// Opens the rooms of events. Returns the events that the log can append now.
    async fn ready<'a>(&self, page: &'a [Owed]) -> Vec<&'a Owed> {
        let (unopened, mut ready) = page.iter().partition::<Vec<_>, _>(|owed| owed.unopened);
        let rooms = unopened.iter().map(|owed| owed.event.room_id).collect::<Vec<_>>();
        let outcomes = self.open_all(&rooms).await;
        ready.extend(unopened.into_iter().zip(outcomes).filter(|(_, opened)| opened.is_ok()).map(|(owed, _)| owed));
        ready
    }

    /// Appends events of different rooms and deletes those that need no further attempt. Returns their number.
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
