//! The marks that wait for the next call, as plain data: for each user and room the highest `seq`.

use std::collections::HashMap;

use confab_common::tables::shrink;
use confab_common::{Code, Error, Result};
use confab_identity::credential::Credential;
use confab_proto::message::v1::Marked;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

/// Most marks that wait, of all users and of one user. A user is in at most 1,000 rooms.
const MAX: u32 = 65_536;
const MAX_OF_USER: u32 = 1_000;

/// The room and the user of a mark.
pub type Key = (Uuid, Uuid);

/// The marks of a user in a room.
pub struct Waiting {
    /// The highest one.
    pub seq: u64,
    /// When the newest one arrived.
    pub arrived: Instant,
    /// How long they are tried.
    pub until: Instant,
    /// The user's newest credential.
    pub credential: Credential,
    answers: Vec<oneshot::Sender<Result<Marked>>>,
    /// How many marks they are.
    count: u32,
    /// How many of them are of the author of a message.
    authored: u32,
}

impl Waiting {
    /// A mark of a user; without an `answer`, of the author of a message.
    pub fn new(
        seq: u64,
        credential: Credential,
        until: Instant,
        answer: Option<oneshot::Sender<Result<Marked>>>,
    ) -> Self {
        let authored = u32::from(answer.is_none());
        let answers = answer.into_iter().collect();
        Self { seq, arrived: Instant::now(), until, credential, answers, count: 1, authored }
    }

    /// Whether a moved marker is news: clients know that an author has read the own message.
    pub fn is_news(&self, marked: &Marked) -> bool {
        self.authored < self.count || marked.passed > u64::from(self.authored)
    }

    /// Answers all marks.
    pub fn answer(self, outcome: &Result<Marked>) {
        for answer in self.answers {
            let _ = answer.send(outcome.clone());
        }
    }

    fn merge(&mut self, other: Self) {
        self.seq = self.seq.max(other.seq);
        self.until = self.until.max(other.until);
        if other.arrived > self.arrived {
            self.arrived = other.arrived;
            self.credential = other.credential;
        }
        self.answers.extend(other.answers);
        self.count += other.count;
        self.authored += other.authored;
    }
}

/// All marks that wait.
#[derive(Default)]
pub struct Pending {
    marks: HashMap<Key, Waiting>,
    of_user: HashMap<Uuid, u32>,
    count: u32,
}

impl Pending {
    /// Adds a mark.
    ///
    /// # Errors
    /// `rate_limited` or `unavailable` beyond the limit of the user or of all users.
    pub fn add(&mut self, key: Key, waiting: Waiting) -> Result<()> {
        let of_user = self.of_user.get(&key.1).copied().unwrap_or_default() + waiting.count;
        if of_user > MAX_OF_USER {
            let error = Error::new(Code::RateLimited, "too many marks wait; repeat this one later");
            return Err(error.retry_in(Duration::from_secs(1)));
        }
        if self.count + waiting.count > MAX {
            return Err(Error::unavailable("the message service"));
        }
        self.of_user.insert(key.1, of_user);
        self.count += waiting.count;
        match self.marks.get_mut(&key) {
            Some(earlier) => earlier.merge(waiting),
            None => _ = self.marks.insert(key, waiting),
        }
        Ok(())
    }

    /// Removes at most `most` marks, and returns those that are still tried, and whether more wait.
    pub fn take(&mut self, most: usize, now: Instant) -> (Vec<(Key, Waiting)>, bool) {
        let keys: Vec<_> = self.marks.keys().take(most).copied().collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(waiting) = self.marks.remove(&key) else { continue };
            self.count -= waiting.count;
            let of_user = self.of_user.get(&key.1).copied().unwrap_or_default().saturating_sub(waiting.count);
            if of_user == 0 {
                self.of_user.remove(&key.1);
            } else {
                self.of_user.insert(key.1, of_user);
            }
            if waiting.until > now {
                taken.push((key, waiting));
            }
        }
        shrink(&mut self.marks);
        shrink(&mut self.of_user);
        (taken, !self.marks.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Uuid = Uuid::from_u128(1);

    fn waiting(seq: u64) -> Waiting {
        Waiting::new(seq, Credential::default(), Instant::now() + Duration::from_secs(9), None)
    }

    fn user(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[tokio::test]
    async fn marks_of_a_user_in_a_room_become_one() {
        let mut pending = Pending::default();
        let (answer, answered) = oneshot::channel();
        let with_answer = Waiting { answers: vec![answer], ..waiting(4) };
        for mark in [waiting(5), with_answer, waiting(3)] {
            pending.add((ROOM, user(1)), mark).unwrap();
        }
        pending.add((user(9), user(1)), waiting(1)).unwrap();
        let (mut taken, more) = pending.take(9, Instant::now());
        taken.sort_by_key(|(key, _)| *key);
        assert!(!more && pending.take(9, Instant::now()).0.is_empty());
        assert_eq!(taken.iter().map(|(_, waiting)| waiting.seq).collect::<Vec<_>>(), [5, 1]);
        taken.remove(0).1.answer(&Ok(Marked { seq: 7, ..Marked::default() }));
        assert_eq!(answered.await.unwrap().unwrap().seq, 7);
    }

    #[test]
    fn marks_are_bounded_for_each_user_and_in_all() {
        let mut pending = Pending::default();
        for number in 0..MAX_OF_USER {
            pending.add((Uuid::from_u128(number.into()), user(1)), waiting(1)).unwrap();
        }
        let code = |refused: Result<()>| refused.unwrap_err().code;
        assert_eq!(code(pending.add((ROOM, user(1)), waiting(1))), Code::RateLimited);
        pending.add((ROOM, user(2)), waiting(1)).unwrap();
        for number in 0..(MAX - MAX_OF_USER - 1) {
            pending.add((ROOM, user(3 + u128::from(number))), waiting(1)).unwrap();
        }
        assert_eq!(code(pending.add((ROOM, user(u128::MAX)), waiting(1))), Code::Unavailable);
        let mut taken = 0;
        while let (batch, true) = pending.take(1024, Instant::now()) {
            taken += batch.len();
        }
        assert_eq!(taken + 1024, MAX as usize);
        assert!(pending.of_user.is_empty() && pending.count == 0);
        assert!(pending.of_user.capacity() < 1000, "the memory of a burst is freed");
    }

    #[test]
    fn a_mark_that_is_too_old_is_dropped() {
        let mut pending = Pending::default();
        pending.add((ROOM, user(1)), waiting(1)).unwrap();
        let (taken, more) = pending.take(9, Instant::now() + Duration::from_secs(10));
        assert!(taken.is_empty() && !more && pending.count == 0);
    }
}
