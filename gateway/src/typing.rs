//! Who is typing in which room: the gateways tell each other over the bus, and each shows it to its own clients. Nothing
//! is stored, and every notice may be lost: clients show a user for 6 s after the last notice.

mod own;
mod table;

use std::sync::Arc;
use std::time::Duration;

use confab_common::bus::{self, Bus, Notice, Notices, Subscriptions};
use confab_proto::channel::TYPING;
use confab_proto::message::v1;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use own::Own;
use table::Table;

/// How long clients show a user after a notice.
pub const EXPIRES_IN: Duration = Duration::from_secs(6);
/// Notices that wait for the clients of this gateway; older ones are dropped.
const WAITING: usize = 1024;
/// Longest username in a notice, in bytes.
const MAX_USERNAME: usize = 128;
/// The interval between two removals of what has expired.
const SWEEP: Duration = Duration::from_secs(10);

/// A user who has begun, continues or has stopped to type in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    pub room: Uuid,
    pub user: Uuid,
    /// Empty for a user who has stopped.
    pub username: String,
    pub on: bool,
}

/// The users who are typing.
pub struct Typing {
    // Each is locked for a look-up or a change, never across an await, and never both.
    own: Mutex<Own>,
    table: Mutex<Table>,
    bus: Bus,
    /// Identifies this process in notices.
    origin: String,
    received: broadcast::Sender<Typed>,
}

impl Typing {
    /// Starts to listen for the notices of other gateways.
    pub fn start(bus: &Bus) -> Arc<Self> {
        let typing = Arc::new(Self {
            own: Mutex::default(),
            table: Mutex::default(),
            bus: bus.clone(),
            origin: Uuid::now_v7().to_string(),
            received: broadcast::channel(WAITING).0,
        });
        let (subscriptions, notices) = bus.listen();
        tokio::spawn(typing.clone().listen(subscriptions, notices));
        typing
    }

    /// The notices of all gateways from now on. Show one only if [`admit`](Self::admit) it.
    pub fn subscribe(&self) -> broadcast::Receiver<Typed> {
        self.received.subscribe()
    }

    /// Records that the user types at a socket of this gateway, and tells it to all gateways, at most once in 3 s for a
    /// user and room.
    pub fn begin(&self, typed: Typed, socket: u64) {
        if self.own.lock().begin(typed.user, typed.room, socket, Instant::now()) {
            self.tell(typed);
        }
    }

    /// Tells all gateways that a user has stopped at a socket of this gateway, unless the user types at another one.
    pub fn end(&self, room: Uuid, user: Uuid, socket: u64) {
        if self.own.lock().end(user, room, Some(socket), Instant::now()) {
            self.tell(stopped(room, user));
        }
    }

    /// The user has posted in the room, at this gateway, and no longer types, at any gateway.
    pub fn posted(&self, room: Uuid, user: Uuid) {
        let was_own = self.own.lock().end(user, room, None, Instant::now());
        if was_own || self.table.lock().has(room, user, Instant::now()) {
            self.tell(stopped(room, user));
        }
    }

    /// A socket has left all rooms.
    pub fn left(&self, user: Uuid, socket: u64) {
        let rooms = self.own.lock().left(user, socket, Instant::now());
        rooms.into_iter().for_each(|room| self.tell(stopped(room, user)));
    }

    /// Decides whether a notice is shown to the clients in its room at this gateway: `followers` clients
    /// Returns the user's name if it is.
    pub fn admit(&self, typed: &Typed, followers: usize) -> Option<String> {
        self.table.lock().hear(typed, followers, Instant::now())
    }

    fn tell(&self, typed: Typed) {
        let notice = v1::Typing {
            origin: self.origin.clone(),
            room_id: typed.room.as_bytes().to_vec(),
            user_id: typed.user.as_bytes().to_vec(),
            username: typed.username.clone(),
            on: typed.on,
        };
        self.bus.publish(TYPING, notice.encode_to_vec());
        // Without a subscriber there is no client yet.
        let _ = self.received.send(typed);
    }

    async fn listen(self: Arc<Self>, subscriptions: Subscriptions, mut notices: Notices) {
        let hear = async {
            let mut ticks = interval(SWEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    notice = notices.next() => match notice {
                        Some(Notice::Message { payload, .. }) => self.hear(&payload),
                        Some(Notice::Up | Notice::Down) => {}
                        None => return,
                    },
                    _ = ticks.tick() => {
                        self.own.lock().sweep(Instant::now());
                        self.table.lock().sweep(Instant::now());
                    }
                }
            }
        };
        // Confirmed when the bus is connected.
        tokio::join!(subscriptions.subscribe(TYPING), hear);
    }

    fn hear(&self, payload: &[u8]) {
        let notice = v1::Typing::decode(payload);
        if notice.as_ref().is_ok_and(|notice| notice.origin == self.origin) {
            return;
        }
        match notice.ok().and_then(plausible) {
            Some(typed) => drop(self.received.send(typed)),
            None => bus::dropped("malformed", 1),
        }
    }
}

/// Reads a notice. Without a cluster key, any program that reaches the bus can publish one.
fn plausible(notice: v1::Typing) -> Option<Typed> {
    let v1::Typing { room_id, user_id, username, on, .. } = notice;
    if username.len() > MAX_USERNAME {
        return None;
    }
    Some(Typed { room: Uuid::from_slice(&room_id).ok()?, user: Uuid::from_slice(&user_id).ok()?, username, on })
}

/// A notice that a user has stopped. Gateways that show the user know the name.
fn stopped(room: Uuid, user: Uuid) -> Typed {
    Typed { room, user, username: String::new(), on: false }
}

#[cfg(test)]
mod tests;
