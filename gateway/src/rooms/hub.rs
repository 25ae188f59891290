//! The fan-out: which client is in which room and receives which events. Plain data behind short locks, without I/O.
//!
//! A client in a room has a **floor**: only events with a higher `seq` are delivered. The floor is infinite while the
//! client is joining, and becomes the `lastSeq` of the answer to its `joinRoom`. While a client joins, the room keeps
//! the events that are fanned out in its **tail**, so that events between the read of history and the answer follow the
//! answer.
//!
//! An event may take clients out of the room: see [`Effect`]. It takes out a client whose floor is below its `seq`. A
//! client that is joining stays, but when such an event follows the history that it read, it must read history again.

mod tail;

use std::collections::HashMap;
use std::sync::Arc;

use confab_socketio::Frame;
use indexmap::IndexMap;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::effect::Effect;
use tail::Tail;

const SHARDS: usize = 64;
const JOINING: u64 = u64::MAX;

/// The hub's interface to a client.
pub trait Listener: Send + Sync {
    /// A number that is unique to the client.
    fn id(&self) -> u64;
    /// The client's user.
    fn user(&self) -> Option<Uuid>;
    /// Queues events of a room, numbered from `first`: either `frames` or `joined`, which contains all of them. Never
    /// waits. `true` when the caller must flush the outbox soon.
    fn deliver(&self, room: Uuid, first: u64, frames: &[Frame], joined: &Frame) -> bool;
    /// Queues an event that may be lost, unless the client is slow. Called under the hub's lock: it must not call the
    /// hub.
    fn notify(&self, event: &Frame);
    /// Writes queued frames, as far as the transport accepts them now.
    fn flush(&self);
    /// Whether the client has read most of the queued frames.
    fn keeps_up(&self) -> bool;
    /// Completes when [`keeps_up`](Self::keeps_up) becomes true or the client is about to be closed.
    fn caught_up(&self) -> impl Future<Output = ()> + Send;
    /// Queues the frames of the arrival, then the events after `last_seq`. Never waits.
    fn arrive(&self, room: Uuid, last_seq: u64, arrival: &Arrival<'_>, missed: &[Frame]);
    /// Notifies the client that it is no longer in a room. Called under the hub's lock: it must not call the hub.
    fn evicted(&self, room: Uuid);
    /// Closes the client at the transport, with jitter, so that it reconnects and requests the events that it missed.
    /// The client is no longer in the room. Called under the hub's lock: it must not call the hub.
    fn resync(self: &Arc<Self>, room: Uuid);
}

/// How a client arrives in a room.
pub enum Arrival<'a> {
    /// The client joined. `last_seq` belongs to this epoch of the log.
    Joined {
        /// The acknowledgement, if the client requested one.
        answer: Option<Frame>,
        epoch: Uuid,
    },
    /// The client was recovered; these are the events up to `last_seq` that it missed.
    Restored(&'a [Frame]),
    /// The client was in the room before and continues after its last event.
    Stayed,
}

/// The clients on this gateway, by room.
pub struct Hub<L> {
    // One lock per shard of rooms. It is held for one fan-out or one change, never across an await.
    shards: Box<[Mutex<Shard<L>>]>,
}

struct Shard<L> {
    rooms: HashMap<Uuid, Room<L>>,
    next_generation: u64,
}

struct Room<L> {
    partition: u32,
    members: IndexMap<u64, Member<L>>,
    /// The newest `seq` fanned out since the first member joined; 0 before.
    seq: u64,
    joining: usize,
    tail: Tail,
}

struct Member<L> {
    listener: Arc<L>,
    floor: u64,
    generation: u64,
}

/// A join in progress.
#[derive(Debug, Clone, Copy)]
pub struct Joining {
    pub room: Uuid,
    generation: u64,
    /// For a client that was in the room before: the newest `seq` that the gateway may have sent to it.
    rejoined_at: Option<u64>,
}

/// Why a join was not completed.
#[derive(Debug, PartialEq, Eq)]
pub enum NotLive {
    /// The client left, was evicted or began another join meanwhile.
    Cancelled,
    /// History must be read again: more events were fanned out meanwhile than the tail holds, or one of them takes the
    /// client out of the room.
    Behind,
}

/// An event to fan out.
pub struct Delivery<E> {
    pub room: Uuid,
    pub seq: u64,
    pub effect: Effect,
    pub event: E,
}

impl<L: Listener> Hub<L> {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Shard { rooms: HashMap::new(), next_generation: 1 })).collect() }
    }

    fn shard(&self, room: Uuid) -> MutexGuard<'_, Shard<L>> {
        // The last byte of a UUIDv7 is random.
        self.shards[room.as_bytes()[15] as usize % SHARDS].lock()
    }

    /// Registers a client as joining: from now on the tail keeps the room's events for it, and none is delivered yet.
    pub fn begin_join(&self, room: Uuid, partition: u32, listener: &Arc<L>) -> Joining {
        let mut shard = self.shard(room);
        let generation = shard.next_generation;
        shard.next_generation += 1;
        let entry = shard.rooms.entry(room).or_insert_with(|| Room::new(partition));
        let seq = entry.seq;
        let member = Member { listener: listener.clone(), floor: JOINING, generation };
        let before = entry.members.insert(listener.id(), member);
        let rejoined_at = match before {
            Some(before) if before.floor == JOINING => {
                entry.joining -= 1;
                None
            }
            before => before.map(|before| seq.max(before.floor)),
        };
        if entry.joining == 0 {
            entry.tail.begin(seq);
        }
        entry.joining += 1;
        Joining { room, generation, rejoined_at }
    }

    /// Completes a join: queues the frames of the arrival, then the events above `last_seq` that were fanned out
    /// meanwhile. Later events are delivered.
    ///
    /// # Errors
    /// When the join was cancelled or history must be read again; the client's state is unchanged.
    pub fn go_live(
        &self,
        joining: &Joining,
        listener: &Arc<L>,
        last_seq: u64,
        arrival: &Arrival<'_>,
    ) -> Result<(), NotLive> {
        let mut shard = self.shard(joining.room);
        let room = shard.rooms.get_mut(&joining.room).ok_or(NotLive::Cancelled)?;
        let member = room
            .members
            .get_mut(&listener.id())
            .filter(|m| m.generation == joining.generation)
            .ok_or(NotLive::Cancelled)?;
        if !room.tail.covers(last_seq) || room.tail.takes_out(listener.user(), last_seq) {
            return Err(NotLive::Behind);
        }
        member.floor = last_seq;
        listener.arrive(joining.room, last_seq, arrival, &room.tail.above(last_seq));
        room.joined();
        Ok(())
    }

    /// Cancels a join. `true` when the client was in the room before: it stays there, or is closed so that it
    /// reconnects.
    pub fn cancel_join(&self, joining: &Joining, listener: &Arc<L>) -> bool {
        let stayed = joining.rejoined_at.map(|seq| self.go_live(joining, listener, seq, &Arrival::Stayed));
        if stayed == Some(Ok(())) {
            return true;
        }
        let mut shard = self.shard(joining.room);
        let Some(room) = shard.rooms.get(&joining.room) else { return false };
        let ours = room.members.get(&listener.id()).is_some_and(|m| m.generation == joining.generation);
        if ours {
            shard.remove(joining.room, listener.id());
        }
        let comes_back = ours && stayed == Some(Err(NotLive::Behind));
        if comes_back {
            listener.resync(joining.room);
        }
        comes_back
    }

    /// Removes a client from a room; `false` when the client was not in it. After the call, no event of the room is
    /// queued for the client.
    pub fn leave(&self, room: Uuid, listener: u64) -> bool {
        self.shard(room).remove(room, listener)
    }

    /// Fans out the events of one partition, in order. Returns the number of deliveries. An event is encoded once, and
    /// only if a client is in its room; successive events of one room reach a client in one write. Clients whose outbox
    /// must be flushed are added to `writers`.
    pub fn fan_out<E>(
        &self,
        deliveries: &[Delivery<E>],
        encode: impl Fn(&E) -> Frame,
        writers: &mut Vec<Arc<L>>,
    ) -> usize {
        let mut delivered = 0;
        let mut frames = Vec::with_capacity(deliveries.len());
        for run in deliveries.chunk_by(|a, b| a.room == b.room) {
            let id = run[0].room;
            let mut shard = self.shard(id);
            // Events after one with an effect reach only the clients that remain.
            for part in run.split_inclusive(|delivery| delivery.effect.is_some()) {
                let Some(room) = shard.rooms.get_mut(&id) else { break };
                let (first, last) = (part[0].seq, &part[part.len() - 1]);
                frames.clear();
                frames.extend(part.iter().map(|delivery| encode(&delivery.event)));
                room.seq = last.seq;
                if room.joining > 0 {
                    room.tail.keep(first, &frames, &last.effect);
                }
                if last.effect == Effect::Hides {
                    frames.pop();
                }
                delivered += room.deliver(id, first, &frames, writers);
                if last.effect.is_some() {
                    shard.apply(id, last.seq, &last.effect);
                }
            }
        }
        delivered
    }

    /// Empties every room of the partition, because their `seq` numbers are no longer valid, and closes the clients in
    /// them.
    pub fn resync(&self, partition: u32) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (id, room) in shard.rooms.extract_if(|_, room| room.partition == partition) {
                room.members.values().for_each(|member| member.listener.resync(id));
            }
        }
    }

    /// The clients in a room or joining it.
    pub fn members(&self, room: Uuid) -> Vec<Arc<L>> {
        let shard = self.shard(room);
        let members = shard.rooms.get(&room).map(|room| room.members.values().map(|member| member.listener.clone()));
        members.into_iter().flatten().collect()
    }

    /// Queues an event that has no `seq` and may be lost for the clients in a room. Clients that are joining do not
    /// receive it.
    pub fn notify(&self, room: Uuid, event: &Frame) {
        let shard = self.shard(room);
        let members = shard.rooms.get(&room).into_iter().flat_map(|room| room.members.values());
        members.filter(|member| member.floor != JOINING).for_each(|member| member.listener.notify(event));
    }

    /// Whether a client is in a room or joining it.
    pub fn has(&self, room: Uuid) -> bool {
        self.shard(room).rooms.contains_key(&room)
    }

    /// The number of clients in a room or joining it.
    pub fn count(&self, room: Uuid) -> usize {
        self.shard(room).rooms.get(&room).map_or(0, |room| room.members.len())
    }

    /// The partitions with a client in, or joining, one of their rooms.
    pub fn partitions(&self) -> std::collections::HashSet<u32> {
        let of_shard = |shard: &Mutex<Shard<L>>| {
            let shard = shard.lock();
            shard.rooms.values().map(|room| room.partition).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Panics when an invariant does not hold.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        for shard in &self.shards {
            for room in shard.lock().rooms.values() {
                assert!(!room.members.is_empty(), "an empty room is removed");
                assert_eq!(room.joining, room.members.values().filter(|m| m.floor == JOINING).count());
                assert!(room.joining > 0 || room.tail.is_empty(), "a tail is kept only while a client joins");
                room.tail.check_invariants();
            }
        }
    }
}

impl<L: Listener> Default for Hub<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> Shard<L> {
    fn remove(&mut self, id: Uuid, listener: u64) -> bool {
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        let Some(member) = room.members.swap_remove(&listener) else { return false };
        if member.floor == JOINING {
            room.joined();
        }
        if room.members.is_empty() {
            self.rooms.remove(&id);
        }
        true
    }
}

impl<L: Listener> Shard<L> {
    /// Removes the clients that the event with this `seq` takes out of a room.
    fn apply(&mut self, id: Uuid, seq: u64, effect: &Effect) {
        if *effect == Effect::Closes {
            if let Some(room) = self.rooms.remove(&id) {
                room.members.values().for_each(|member| member.listener.evicted(id));
            }
            return;
        }
        let Some(room) = self.rooms.get_mut(&id) else { return };
        room.members.retain(|_, member| {
            // The floor of a client that is joining is infinite: `go_live` decides on it.
            let stays = member.floor >= seq || !effect.takes_out(member.listener.user());
            if !stays && *effect == Effect::Hides {
                member.listener.resync(id);
            } else if !stays {
                member.listener.evicted(id);
            }
            stays
        });
        if room.members.is_empty() {
            self.rooms.remove(&id);
        }
    }
}

impl<L> Room<L> {
    fn new(partition: u32) -> Self {
        Self { partition, members: IndexMap::new(), seq: 0, joining: 0, tail: Tail::default() }
    }

    fn joined(&mut self) {
        self.joining -= 1;
        if self.joining == 0 {
            self.tail.clear();
        }
    }
}

impl<L: Listener> Room<L> {
    /// Delivers events, numbered from `first`, to the clients whose floor is below. Returns the number of deliveries.
    fn deliver(&self, id: Uuid, first: u64, frames: &[Frame], writers: &mut Vec<Arc<L>>) -> usize {
        if frames.is_empty() {
            return 0;
        }
        let joined = Frame::join(frames);
        let mut delivered = 0;
        for member in self.members.values() {
            let skip = member.floor.saturating_sub(first - 1).min(frames.len() as u64) as usize;
            let to_write = match skip {
                0 => member.listener.deliver(id, first, frames, &joined),
                skip if skip == frames.len() => continue,
                // A floor within the run is rare.
                skip => member.listener.deliver(id, member.floor + 1, &frames[skip..], &Frame::join(&frames[skip..])),
            };
            writers.extend(to_write.then(|| member.listener.clone()));
            delivered += frames.len() - skip;
        }
        delivered
    }
}

#[cfg(test)]
mod tests;
