//! The users who type at this gateway, and when each was last told to the others.

use std::collections::HashMap;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::tables::shrink;
use tokio::time::Instant;
use uuid::Uuid;

use super::EXPIRES_IN;

/// The least time between two notices that a user types in a room.
const REPEATS_AFTER: Duration = Duration::from_secs(3);
/// Most rooms of one user in the table.
const ROOMS: usize = 16;
/// Most users in the table.
const USERS: usize = 100_000;

#[derive(Default)]
pub struct Own(HashMap<Uuid, Vec<Entry>>);

struct Entry {
    room: Uuid,
    /// The socket at which the user typed last.
    socket: u64,
    told: Instant,
    /// Whether the user types. An entry that is off delays the next notice.
    on: bool,
}

impl Own {
    /// Records that the user types; returns whether to tell it. Beyond the limits, it is not told.
    pub fn begin(&mut self, user: Uuid, room: Uuid, socket: u64, now: Instant) -> bool {
        if self.0.len() >= USERS && !self.0.contains_key(&user) {
            LIMITS.hit("typing");
            return false;
        }
        let rooms = self.0.entry(user).or_default();
        rooms.retain(|entry| now - entry.told < EXPIRES_IN);
        if let Some(entry) = rooms.iter_mut().find(|entry| entry.room == room) {
            entry.socket = socket;
            let due = now - entry.told >= REPEATS_AFTER;
            if due {
                (entry.told, entry.on) = (now, true);
            }
            return due;
        }
        if rooms.len() >= ROOMS {
            LIMITS.hit("typing");
            return false;
        }
        rooms.push(Entry { room, socket, told: now, on: true });
        true
    }

    /// Records that the user has stopped, at one socket or at all; returns whether others may still show the user.
    pub fn end(&mut self, user: Uuid, room: Uuid, socket: Option<u64>, now: Instant) -> bool {
        let entry = self.0.get_mut(&user).and_then(|rooms| rooms.iter_mut().find(|entry| entry.room == room));
        let entry = entry.filter(|entry| socket.is_none_or(|socket| entry.socket == socket));
        entry.is_some_and(|entry| std::mem::take(&mut entry.on) && now - entry.told < EXPIRES_IN)
    }

    /// Ends what the user types at a socket, and returns the rooms where others may still show the user.
    pub fn left(&mut self, user: Uuid, socket: u64, now: Instant) -> Vec<Uuid> {
        let entries = self.0.get_mut(&user).into_iter().flatten().filter(|entry| entry.socket == socket);
        let ended = entries.filter_map(|entry| std::mem::take(&mut entry.on).then_some((entry.room, entry.told)));
        ended.filter(|(_, told)| now - *told < EXPIRES_IN).map(|(room, _)| room).collect()
    }

    pub fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, rooms| {
            rooms.retain(|entry| now - entry.told < EXPIRES_IN);
            !rooms.is_empty()
        });
        shrink(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Uuid = Uuid::from_u128(7);
    const ROOM: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_user_is_announced_at_most_once_in_three_seconds_also_after_a_stop() {
        let (mut own, start) = (Own::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(own.begin(ADA, ROOM, 1, at(0)));
        assert!(!own.begin(ADA, ROOM, 1, at(2999)));
        assert!(own.end(ADA, ROOM, Some(1), at(2999)));
        assert!(!own.end(ADA, ROOM, Some(1), at(2999)), "told once");
        assert!(!own.begin(ADA, ROOM, 1, at(2999)));
        assert!(own.begin(ADA, ROOM, 1, at(3000)));
        assert!(!own.end(ADA, ROOM, Some(1), at(9000)), "clients have stopped to show it");
    }

    #[test]
    fn only_the_socket_at_which_the_user_types_ends_it() {
        let (mut own, now) = (Own::default(), Instant::now());
        own.begin(ADA, ROOM, 1, now);
        own.begin(ADA, ROOM, 2, now);
        assert!(own.left(ADA, 1, now).is_empty());
        assert!(!own.end(ADA, ROOM, Some(1), now));
        assert_eq!(own.left(ADA, 2, now), [ROOM]);
        assert!(own.left(ADA, 2, now).is_empty());
    }

    #[test]
    fn the_rooms_of_a_user_are_bounded_and_expire() {
        let (mut own, now) = (Own::default(), Instant::now());
        for room in 0..ROOMS as u128 {
            assert!(own.begin(ADA, Uuid::from_u128(100 + room), 1, now));
        }
        assert!(!own.begin(ADA, ROOM, 1, now));
        assert!(own.begin(ADA, ROOM, 1, now + EXPIRES_IN));
        own.sweep(now + EXPIRES_IN * 2);
        assert!(own.0.is_empty());
    }
}
