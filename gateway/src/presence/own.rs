//! The users of this gateway's sockets, what each says, and when each was last stored as seen.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use confab_common::tables::shrink;
use tokio::time::Instant;
use uuid::Uuid;

use super::{GRACE, Here, Said};

/// The time at which a user was seen is stored at most this often.
const STAMP_EVERY: Duration = Duration::from_secs(60);

/// The users of this gateway. The limits of sockets bound the table; a user stays in it for [`GRACE`] after the last
/// socket.
#[derive(Default)]
pub struct Own {
    users: HashMap<Uuid, User>,
}

struct User {
    sockets: Vec<(u64, Said)>,
    /// What the other gateways received last.
    told: Here,
    left: Instant,
    /// When the user was last stored as seen, and whether that must be repeated.
    stamped: Option<Instant>,
}

impl User {
    fn here(&self) -> Here {
        match (self.sockets.iter().map(|(_, said)| *said).max(), self.told) {
            (Some(said), _) => Here::Live(said),
            (None, Here::Live(said) | Here::Left(said)) => Here::Left(said),
        }
    }
}

impl Own {
    /// A socket is connected, or says something else. Returns what to tell the other gateways, if anything.
    pub fn say(&mut self, user: Uuid, socket: u64, said: Said, now: Instant) -> Option<Here> {
        let entry = self.users.entry(user);
        let is_new = matches!(entry, Entry::Vacant(_));
        let new = || User { sockets: Vec::new(), told: Here::Live(said), left: now, stamped: None };
        let of_user = entry.or_insert_with(new);
        match of_user.sockets.iter_mut().find(|(other, _)| *other == socket) {
            Some((_, before)) => *before = said,
            None => of_user.sockets.push((socket, said)),
        }
        let here = of_user.here();
        let before = std::mem::replace(&mut of_user.told, here);
        (is_new || before != here).then_some(here)
    }

    /// A socket has ended. Returns what to tell the other gateways, if anything.
    pub fn end(&mut self, user: Uuid, socket: u64, now: Instant) -> Option<Here> {
        let of_user = self.users.get_mut(&user)?;
        let before = of_user.sockets.len();
        of_user.sockets.retain(|(other, _)| *other != socket);
        if of_user.sockets.len() == before {
            return None;
        }
        let here = of_user.here();
        of_user.left = now;
        let told = std::mem::replace(&mut of_user.told, here);
        (told != here).then_some(here)
    }

    /// This gateway's board: what the others must know of all users here, and the age of what was left.
    pub fn board(&self, now: Instant) -> impl Iterator<Item = (Uuid, Here, Duration)> {
        self.users.iter().map(move |(user, of_user)| {
            let age = if of_user.sockets.is_empty() { now - of_user.left } else { Duration::ZERO };
            (*user, of_user.told, age)
        })
    }

    /// What the other gateways must know of a user; `None` for one who is not here.
    pub fn get(&self, user: Uuid) -> Option<Here> {
        self.users.get(&user).map(|of_user| of_user.told)
    }

    /// Forgets users whose last socket ended [`GRACE`] ago; returns them.
    pub fn sweep(&mut self, now: Instant) -> Vec<Uuid> {
        let is_gone = |of_user: &User| of_user.sockets.is_empty() && now - of_user.left >= GRACE;
        let gone: Vec<_> = self.users.iter().filter(|(_, of_user)| is_gone(of_user)).map(|(user, _)| *user).collect();
        gone.iter().for_each(|user| drop(self.users.remove(user)));
        shrink(&mut self.users);
        gone
    }

    /// Users to store as seen now, at most `most`: those who are visible and were not stored for a minute. What an
    /// invisible user does changes no time.
    pub fn to_stamp(&mut self, most: usize, now: Instant) -> Vec<Uuid> {
        let is_due = |of_user: &User| {
            matches!(of_user.told, Here::Live(said) if said != Said::Invisible)
                && of_user.stamped.is_none_or(|stamped| now - stamped >= STAMP_EVERY)
        };
        let due = self.users.iter_mut().filter(|(_, of_user)| is_due(of_user)).take(most);
        due.map(|(user, of_user)| {
            of_user.stamped = Some(now);
            *user
        })
        .collect()
    }

    /// The store may have lost times: all visible users are due again.
    pub fn stamp_again(&mut self) {
        self.users.values_mut().for_each(|of_user| of_user.stamped = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Uuid = Uuid::from_u128(7);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_strongest_of_all_sockets_is_announced_once() {
        let (mut own, now) = (Own::default(), Instant::now());
        assert_eq!(own.say(ADA, 1, Said::Online, now), Some(Here::Live(Said::Online)));
        assert_eq!(own.say(ADA, 2, Said::Away, now), None);
        assert_eq!(own.say(ADA, 2, Said::Busy, now), Some(Here::Live(Said::Busy)));
        assert_eq!(own.say(ADA, 3, Said::Invisible, now), Some(Here::Live(Said::Invisible)));
        assert_eq!(own.end(ADA, 3, now), Some(Here::Live(Said::Busy)));
        assert_eq!(own.end(ADA, 2, now), Some(Here::Live(Said::Online)));
        assert_eq!(own.end(ADA, 2, now), None, "a socket ends once");
        assert_eq!(own.end(ADA, 1, now), Some(Here::Left(Said::Online)));
    }

    #[test]
    fn a_user_is_kept_for_the_grace_and_then_forgotten() {
        let (mut own, start) = (Own::default(), Instant::now());
        own.say(ADA, 1, Said::Busy, start);
        own.end(ADA, 1, at(start, 1));
        assert!(own.sweep(at(start, 10)).is_empty());
        assert_eq!(own.get(ADA), Some(Here::Left(Said::Busy)));
        let board: Vec<_> = own.board(at(start, 10)).collect();
        assert_eq!(board, [(ADA, Here::Left(Said::Busy), Duration::from_secs(9))]);
        assert_eq!(own.sweep(at(start, 11)), [ADA]);
        assert_eq!((own.get(ADA), own.board(start).count()), (None, 0));
    }

    #[test]
    fn a_reconnect_says_the_new_status_and_nothing_of_the_old_one() {
        let (mut own, start) = (Own::default(), Instant::now());
        own.say(ADA, 1, Said::Busy, start);
        own.end(ADA, 1, start);
        assert_eq!(own.say(ADA, 2, Said::Invisible, at(start, 3)), Some(Here::Live(Said::Invisible)));
        assert_eq!(own.end(ADA, 2, at(start, 4)), Some(Here::Left(Said::Invisible)));
    }

    #[test]
    fn visible_users_are_stamped_at_once_and_then_each_minute() {
        let (mut own, start) = (Own::default(), Instant::now());
        let (bob, eve) = (Uuid::from_u128(8), Uuid::from_u128(9));
        own.say(ADA, 1, Said::Online, start);
        own.say(bob, 2, Said::Invisible, start);
        assert_eq!(own.to_stamp(10, start), [ADA], "who has just connected, but no invisible user");
        own.say(eve, 3, Said::Away, at(start, 30));
        assert_eq!(own.to_stamp(10, at(start, 59)), [eve]);
        assert_eq!(own.to_stamp(10, at(start, 60)), [ADA]);
        own.stamp_again();
        assert_eq!(own.to_stamp(1, at(start, 61)).len(), 1, "in bounded steps");
        assert_eq!(own.to_stamp(10, at(start, 61)).len(), 1);
        assert!(own.to_stamp(10, at(start, 61)).is_empty());
    }
}
