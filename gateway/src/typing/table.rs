//! The users that this gateway's clients see typing, and how many notices they receive.

use std::collections::HashMap;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::tables::shrink;
use tokio::time::Instant;
use uuid::Uuid;

use super::{EXPIRES_IN, Typed};

/// A room with more clients here shows at most [`SHOWN_OF_MANY`] users at once.
const FEW_FOLLOWERS: usize = 200;
const SHOWN_OF_MANY: usize = 5;
/// Most users shown in one room.
const SHOWN: usize = 200;
/// Most notices that the clients in a room are sent in one [`WINDOW`].
const NOTICES: usize = 5;
const WINDOW: Duration = Duration::from_secs(1);
/// Most users in the table, and most rooms.
const USERS: usize = 100_000;

#[derive(Default)]
pub struct Table {
    rooms: HashMap<Uuid, Room>,
    /// The number of users in all rooms.
    users: usize,
}

struct Room {
    shown: HashMap<Uuid, Shown>,
    window: Instant,
    sent: usize,
}

struct Shown {
    username: String,
    until: Instant,
}

impl Room {
    fn expire(&mut self, now: Instant) {
        self.shown.retain(|_, shown| shown.until > now);
    }

    /// Whether one more notice may be sent in this window.
    fn may_send(&mut self, now: Instant) -> bool {
        if now - self.window >= WINDOW {
            (self.window, self.sent) = (now, 0);
        }
        let may = self.sent < NOTICES;
        self.sent += usize::from(may);
        may
    }
}

impl Table {
    /// Takes a notice for a room with this many clients here. Returns the user's name if they are sent the notice. One
    /// that is not sent is not missed for long: a client repeats that its user types, and a stop comes by itself.
    pub fn hear(&mut self, typed: &Typed, followers: usize, now: Instant) -> Option<String> {
        if !typed.on {
            let room = self.rooms.get_mut(&typed.room)?;
            let shown = room.shown.remove(&typed.user)?;
            self.users -= 1;
            return (shown.until > now && followers > 0 && room.may_send(now)).then_some(shown.username);
        }
        let is_full = self.users >= USERS || self.rooms.len() >= USERS;
        if is_full && !self.rooms.get(&typed.room).is_some_and(|room| room.shown.contains_key(&typed.user)) {
            LIMITS.hit("typing");
            return None;
        }
        let new = || Room { shown: HashMap::new(), window: now, sent: 0 };
        let room = self.rooms.entry(typed.room).or_insert_with(new);
        let before = room.shown.len();
        room.expire(now);
        // Without a client here, a user is kept so that a post at this gateway ends it at the others.
        let most = if (1..=FEW_FOLLOWERS).contains(&followers) { SHOWN } else { SHOWN_OF_MANY };
        let fits = room.shown.len() < most || room.shown.contains_key(&typed.user);
        // A user whose notice is not sent is not kept: then no stop is sent for it either.
        let is_kept = fits && (followers == 0 || room.may_send(now));
        if is_kept {
            let shown = Shown { username: typed.username.clone(), until: now + EXPIRES_IN };
            room.shown.insert(typed.user, shown);
        }
        self.users = self.users + room.shown.len() - before;
        (is_kept && followers > 0).then(|| typed.username.clone())
    }

    /// Whether clients of any gateway may see the user typing.
    pub fn has(&self, room: Uuid, user: Uuid, now: Instant) -> bool {
        self.rooms.get(&room).and_then(|room| room.shown.get(&user)).is_some_and(|shown| shown.until > now)
    }

    /// Removes what has expired.
    pub fn sweep(&mut self, now: Instant) {
        self.rooms.retain(|_, room| {
            room.expire(now);
            !room.shown.is_empty() || now - room.window < WINDOW
        });
        self.users = self.rooms.values().map(|room| room.shown.len()).sum();
        shrink(&mut self.rooms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(user: u128, on: bool) -> Typed {
        Typed { room: Uuid::from_u128(1), user: Uuid::from_u128(user), username: "ada".into(), on }
    }

    #[test]
    fn a_thousand_typists_cause_five_notices_a_second() {
        for followers in [10, 1000] {
            let (mut table, start) = (Table::default(), Instant::now());
            for second in 0..4 {
                let sent = (0..1000).filter(|user| {
                    let now = start + Duration::from_secs(second) + Duration::from_micros(*user as u64);
                    table.hear(&typed(*user, *user % 3 > 0), followers, now).is_some()
                });
                assert!(sent.count() <= NOTICES, "{followers} followers, second {second}");
            }
        }
    }

    #[test]
    fn a_large_room_shows_five_users_until_one_stops_or_expires() {
        let (mut table, start) = (Table::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for user in 0..5 {
            assert!(table.hear(&typed(user, true), 1000, at(0)).is_some());
        }
        assert!(table.hear(&typed(5, true), 1000, at(1)).is_none());
        assert!(table.hear(&typed(4, true), 1000, at(1)).is_some(), "a user who is shown continues");
        assert!(table.hear(&typed(0, false), 1000, at(1)).is_some());
        assert!(table.hear(&typed(5, true), 1000, at(1)).is_some());
        assert!(table.hear(&typed(6, true), 1000, at(2)).is_none());
        assert!(table.hear(&typed(6, true), 1000, at(6)).is_some(), "three have expired");
    }

    #[test]
    fn a_stop_is_sent_only_for_a_user_who_is_shown() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert!(table.hear(&typed(7, false), 2, now).is_none());
        assert!(
            table.hear(&typed(7, true), 2, now).is_some() && table.has(Uuid::from_u128(1), Uuid::from_u128(7), now)
        );
        assert!(table.hear(&typed(7, false), 2, now).is_some());
        assert!(table.hear(&typed(7, false), 2, now).is_none());
        assert!(table.hear(&typed(7, true), 2, now).is_some());
        assert!(table.hear(&typed(7, false), 2, now + EXPIRES_IN).is_none());
    }

    #[test]
    fn rooms_without_typists_take_no_space() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert!(table.hear(&typed(7, true), 0, now).is_none());
        table.sweep(now + Duration::from_secs(5));
        assert_eq!((table.rooms.len(), table.users), (1, 1));
        table.sweep(now + EXPIRES_IN);
        assert_eq!((table.rooms.len(), table.users), (0, 0));
    }
}
