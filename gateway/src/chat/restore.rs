//! Recovers a client: the gateway joins it to the rooms of its offset as in a normal join, and reads the missed events
//! from the log. Only when it has all of them does it connect the client as recovered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_common::{Result, grpc};
use confab_proto::room::v1::GetRoomRequest;
use confab_socketio::Frame;
use futures::future::{join_all, try_join_all};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::client::Socket;
use super::context::Chat;
use super::join::{BEHIND, begin};
use super::recovery::Offset;
use crate::metrics::METRICS;
use crate::rooms::history::{User, Wanted};
use crate::rooms::hub::{Arrival, Joining, NotLive};
use crate::rooms::replay;
use crate::turns::restore_permit;

/// Maximum number of events of one recovery, and of their bytes with offsets: less than the outbox's bound for answers.
/// A client that has missed more must join and read history.
const MAX_EVENTS: usize = 2_000;
const MAX_COST: usize = 1536 * 1024;
/// The time limits for the permits of a recovery, when many clients return together, and for the recovery itself. The
/// client waits for the answer to its CONNECT meanwhile.
const PERMIT_WITHIN: Duration = Duration::from_secs(20);
const RESTORED_WITHIN: Duration = Duration::from_secs(5);

/// A client that is ready to be recovered.
pub struct Restored {
    rooms: Vec<Room>,
    epoch: Uuid,
    budget: Budget,
    /// Held until the outbox counts the missed events.
    _permits: Permits,
}

/// The permits for a recovery: one of the user's and one of the gateway's.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A room that the client has joined again.
struct Room {
    joining: Joining,
    /// All events up to this one were sent to the client before, or are in `missed`.
    seq: u64,
    missed: Vec<Frame>,
}

/// The rest of [`MAX_EVENTS`] and [`MAX_COST`].
struct Budget {
    events: AtomicUsize,
    cost: AtomicUsize,
    /// Bytes that the offset adds to each event.
    offset: usize,
}

/// The gateway cannot prove that no event would be lost or repeated.
struct Inexact;

impl<E: Into<confab_common::Error>> From<E> for Inexact {
    fn from(_: E) -> Self {
        Self
    }
}

/// Joins the client to the rooms of its offset and reads the events that it missed. `None` when the client cannot be
/// recovered exactly; it is in no room then.
pub async fn restore(chat: &Arc<Chat>, socket: &Arc<Socket>, offset: &Offset) -> Option<Restored> {
    let budget = Budget { events: MAX_EVENTS.into(), cost: MAX_COST.into(), offset: offset.encode().len() };
    let restoring = async {
        let permits = timeout(PERMIT_WITHIN, acquire_permits(chat, socket)).await.unwrap_or(Err(Inexact))?;
        let rooms =
            offset.rooms.iter().map(|(room, sent)| restore_room(chat, socket, *room, *sent, offset.epoch, &budget));
        let rooms = timeout(RESTORED_WITHIN, try_join_all(rooms)).await.unwrap_or(Err(Inexact))?;
        Ok((rooms, permits))
    };
    let back = restoring.await;
    METRICS.recoveries.hit(if back.is_ok() { "yes" } else { "no" });
    match back {
        Ok((rooms, permits)) => Some(Restored { rooms, epoch: offset.epoch, budget, _permits: permits }),
        Err(Inexact) => {
            for room in offset.rooms.keys() {
                chat.hub.leave(*room, socket.id());
                socket.client.forget_room(*room);
            }
            None
        }
    }
}

/// Waits for the permits of a recovery, and until the user holds at most an equal share of the memory limit.
async fn acquire_permits(chat: &Chat, socket: &Socket) -> Result<Permits, Inexact> {
    let of_user = restore_permit(&socket.outbox.share()).await.ok_or(Inexact)?;
    // A user above its share waits here, before it takes a permit that all users share.
    socket.outbox.within_share("recovery").await;
    let of_all = chat.restores.clone().acquire_owned().await.map_err(|_| Inexact)?;
    Ok((of_user, of_all))
}

async fn restore_room(
    chat: &Chat,
    socket: &Arc<Socket>,
    id: Uuid,
    sent: Option<u64>,
    epoch: Uuid,
    budget: &Budget,
) -> Result<Room, Inexact> {
    let seq = sent.ok_or(Inexact)?;
    let partition = chat.follower.partition_of(id).await;
    let joining = begin(chat, socket, id, partition)?;
    chat.follower.follow(partition).await;
    // The room service answers whether the room still exists. The log of a deleted room may exist longer.
    let caller = socket.client.identity().map(|identity| identity.user.clone());
    let get = GetRoomRequest { caller, id: id.to_string(), moderator: false };
    let get = socket.client.credential.present().attach(grpc::request(get, chat.clients.read));
    chat.clients.room.clone().get_room(get).await?;
    let mut room = Room { joining, seq, missed: Vec::new() };
    room.read_on(chat, socket, epoch, budget).await?;
    Ok(room)
}

impl Room {
    /// Reads the missed events up to the room's newest one, if the user may read the room at that one.
    async fn read_on(&mut self, chat: &Chat, socket: &Socket, epoch: Uuid, budget: &Budget) -> Result<(), Inexact> {
        loop {
            let user = socket.client.credential.reader();
            let wanted = Wanted::After { after: self.seq, changed_from: None };
            let page = chat.history.read(self.joining.room, wanted, user.clone()).await?;
            self.check(page.epoch(), page.last_seq(), epoch)?;
            for event in page.events() {
                if event.seq != self.seq + 1 {
                    break;
                }
                self.add(event.seq, event.frame(), budget)?;
            }
            if self.seq >= page.last_seq() {
                return Ok(());
            }
            let continues = page.more() && page.events().last().is_some_and(|last| last.seq == self.seq);
            if !continues {
                self.read_changes(chat, user.as_ref(), epoch, budget).await?;
            }
        }
    }

    /// Reads the next missed events, one for each number of the room: history has no changes of messages.
    async fn read_changes(
        &mut self,
        chat: &Chat,
        user: Option<&User>,
        epoch: Uuid,
        budget: &Budget,
    ) -> Result<(), Inexact> {
        let replay = replay::read(&chat.clients, self.joining.room, self.seq, user).await?;
        self.check(&replay.epoch, replay.last_seq, epoch)?;
        if replay.frames.is_empty() {
            return Err(Inexact);
        }
        for (seq, frame) in replay.frames {
            if seq != self.seq + 1 {
                return Err(Inexact);
            }
            self.add(seq, frame, budget)?;
        }
        Ok(())
    }

    fn add(&mut self, seq: u64, frame: Frame, budget: &Budget) -> Result<(), Inexact> {
        budget.take(frame.cost())?;
        self.missed.push(frame);
        self.seq = seq;
        Ok(())
    }

    /// Whether the numbers of a page continue those that the client has.
    fn check(&self, epoch: &str, last_seq: u64, expected: Uuid) -> Result<(), Inexact> {
        if epoch.parse() == Ok(expected) && last_seq >= self.seq { Ok(()) } else { Err(Inexact) }
    }

    async fn go_live(mut self, chat: &Chat, socket: &Arc<Socket>, epoch: Uuid, budget: &Budget) -> Result<(), Inexact> {
        loop {
            let live = chat.hub.go_live(&self.joining, socket, self.seq, &Arrival::Restored(&self.missed));
            match live {
                Ok(()) => return Ok(()),
                // After it was connected, the client has left the room and joined it again.
                Err(NotLive::Cancelled) if socket.client.is_in(self.joining.room) => return Ok(()),
                Err(NotLive::Cancelled) => return Err(Inexact),
                Err(NotLive::Behind) => {
                    sleep(BEHIND).await;
                    self.read_on(chat, socket, epoch, budget).await?;
                }
            }
        }
    }
}

impl Restored {
    /// Queues the missed events for the client, which has been connected as recovered, and starts to deliver new ones.
    /// `false` when this fails: the caller must close the session, and the client reconnects with its newest offset.
    pub async fn go_live(self, chat: &Arc<Chat>, socket: &Arc<Socket>) -> bool {
        let Self { rooms, epoch, budget, _permits } = self;
        let live = join_all(rooms.into_iter().map(|room| room.go_live(chat, socket, epoch, &budget)));
        timeout(RESTORED_WITHIN, live).await.is_ok_and(|rooms| rooms.iter().all(Result::is_ok))
    }
}

impl Budget {
    fn take(&self, cost: usize) -> Result<(), Inexact> {
        let take = |left: &AtomicUsize, some: usize| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(some)).map_err(|_| Inexact)
        };
        take(&self.events, 1)?;
        take(&self.cost, cost + self.offset)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
