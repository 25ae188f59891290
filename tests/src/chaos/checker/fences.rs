//! I6 for posts and reads: a user without the right can do neither, and a user with the right can do both.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::super::access::Rights;
use super::super::history::{At, Attempt, Outcome};
use super::Judge;

/// After an acknowledged removal, REST rejects the user within this time.
const REMOVED: Duration = Duration::from_secs(1);

/// A user in a room, with the rights over time.
struct Place<'a> {
    room: Uuid,
    rights: &'a Rights,
}

impl Judge<'_> {
    pub(super) fn fences(&mut self) {
        let mut known = HashMap::<(Uuid, Uuid), Rights>::new();
        self.posts(&mut known);
        self.rejections(&mut known);
        self.reads(&mut known);
    }

    /// No event of a user is in history from a time at which the user was not allowed to post.
    fn posts(&mut self, known: &mut HashMap<(Uuid, Uuid), Rights>) {
        let records = self.records;
        for room in records.openings.keys() {
            for stored in records.history.get(room).into_iter().flatten() {
                let user = stored.sender;
                let rights = known.entry((*room, user)).or_insert_with(|| self.rights(*room, user));
                if let Some(out) = rights.outs.iter().find(|out| out.forbids(stored.seen.seq)) {
                    let evidence = format!("user {user} posted {:?} during {out:?}", stored.seen);
                    self.verdict.counts.trespassed += 1;
                    self.violated("I6", evidence);
                }
            }
        }
    }

    /// A post is rejected only if its user may have been without the right.
    fn rejections(&mut self, known: &mut HashMap<(Uuid, Uuid), Rights>) {
        let records = self.records;
        for send in records.sends.iter().filter(|send| send.guest) {
            let (room, user) = (send.room, send.sender);
            let rights = known.entry((room, user)).or_insert_with(|| self.rights(room, user));
            for attempt in send.attempts.iter().filter(|attempt| attempt.outcome.is_hidden()) {
                self.rejection(&Place { room, rights }, attempt, &format!("the post {} of user {user}", send.key));
            }
        }
    }

    /// History is returned only to users with the right, and always to them.
    fn reads(&mut self, known: &mut HashMap<(Uuid, Uuid), Rights>) {
        let records = self.records;
        for read in &records.reads {
            let (room, user, attempt) = (read.room, read.user, &read.attempt);
            let rights = known.entry((room, user)).or_insert_with(|| self.rights(room, user));
            let place = Place { room, rights };
            if attempt.outcome.is_hidden() {
                self.rejection(&place, attempt, &format!("a read of user {user}"));
            } else if attempt.outcome == Outcome::Done && self.is_out(&place, attempt) {
                self.verdict.counts.trespassed += 1;
                self.violated("I6", format!("user {user} read room {room} without the right: {attempt:?}"));
            }
        }
    }

    fn rejection(&mut self, place: &Place<'_>, attempt: &Attempt, what: &str) {
        self.verdict.counts.rejected += 1;
        if !self.may_be_out(place, attempt) {
            self.violated("I6", format!("{what} was rejected, but the user had the right: {attempt:?}"));
        }
    }

    /// Whether the user had certainly no right for the whole attempt.
    fn is_out(&self, place: &Place<'_>, attempt: &Attempt) -> bool {
        place.rights.outs.iter().any(|out| {
            let removed = self.change(place.room, out.from).1.saturating_add(REMOVED);
            let returns = out.until.map_or(At::MAX, |until| self.change(place.room, until).0);
            removed <= attempt.begun && attempt.ended <= returns
        })
    }

    /// Whether the user may have had no right at some time of the attempt.
    fn may_be_out(&self, place: &Place<'_>, attempt: &Attempt) -> bool {
        place.rights.outs.iter().any(|out| {
            let removed = self.change(place.room, out.from).0;
            let returned = out.until.map_or(At::MAX, |until| self.change(place.room, until).1);
            removed <= attempt.ended && attempt.begun <= returned
        })
    }

    /// Returns when a change began, and when it was known to stand. A change of no client may have been at any time,
    /// and a room is created before the run.
    fn change(&self, room: Uuid, seq: u64) -> (At, At) {
        let unknown = if seq == 0 { At::ZERO } else { At::MAX };
        self.changed.get(&(room, seq)).copied().unwrap_or((At::ZERO, unknown))
    }
}
