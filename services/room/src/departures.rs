//! The departure of users whose accounts were deleted.
//!
//! The store records such a user first, and from then on rejects additions of the user to rooms. An addition that began
//! earlier may still commit after the last room was left; a recheck finds it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use confab_common::Result;
use confab_common::clock::now_ms;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::event;
use crate::store::{Member, MemberChange, Role, Store, User};

/// Maximum rooms that one call leaves.
const ROOMS_PER_CALL: u32 = 50;
/// After this time, a call leaves no further room.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Maximum candidates for the ownership of one room.
const CANDIDATES: u32 = 10;
/// How often users who have left are rechecked.
const RECHECK_EVERY: Duration = Duration::from_secs(5);
/// For how long users who have left are rechecked, in milliseconds; a statement takes at most 3 s.
const RECHECK_FOR_MS: i64 = 60_000;
/// Users per read of the recheck.
const PAGE: u32 = 64;

/// The accounts that a caller has looked up, because they may become the owners of rooms.
#[derive(Debug, Default)]
pub struct LookedUp {
    pub active: HashSet<Uuid>,
    pub inactive: HashSet<Uuid>,
}

/// The progress of a departure.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the user is still in a room.
    pub more: bool,
    /// Users that the caller must look up first.
    pub candidates: Vec<Uuid>,
}

/// The outcome of leaving one room.
enum Step {
    Left,
    /// Another caller changed the room first.
    Overtaken,
    /// The next owner is not known before these users are looked up.
    Asks(Vec<Uuid>),
}

pub struct Departures {
    store: Arc<dyn Store>,
}

impl Departures {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Removes a user from some rooms. A room that the user owns passes to another member, or is deleted if there is
    /// none. The events are in the outbox when the call returns. With `looked_up`, a room passes only to a user who was
    /// looked up: to the first active one, or to the first one if none is active.
    pub async fn remove_user(&self, user: &User, looked_up: Option<&LookedUp>) -> Result<Progress> {
        self.store.record_gone(user.clone()).await?;
        let progress = self.leave(user, looked_up).await?;
        if !progress.more {
            self.store.record_left(user.id, now_ms()).await?;
        }
        Ok(progress)
    }

    /// Rechecks users who have left all rooms, without end.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.recheck(now_ms()).await {
                tracing::debug!(%error, "cannot recheck the rooms of deleted users");
            }
            sleep(RECHECK_EVERY).await;
        }
    }

    async fn recheck(&self, now_ms: i64) -> Result<()> {
        let mut after = Uuid::nil();
        loop {
            let page = self.store.unsettled(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = last.id;
            for (user, left_at_ms) in page {
                let progress = match self.leave(&user, None).await {
                    Ok(progress) => progress,
                    Err(error) => {
                        tracing::warn!(%error, user = %user.id, "cannot recheck the rooms of a deleted user now");
                        continue;
                    }
                };
                if !progress.more && now_ms - left_at_ms >= RECHECK_FOR_MS {
                    self.store.settle(user.id).await?;
                }
            }
        }
    }

    async fn leave(&self, user: &User, looked_up: Option<&LookedUp>) -> Result<Progress> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut rooms = self.store.rooms_of(user.id, ROOMS_PER_CALL + 1).await?;
        let mut progress = Progress { more: rooms.len() > ROOMS_PER_CALL as usize, ..Progress::default() };
        rooms.truncate(ROOMS_PER_CALL as usize);
        for room in rooms {
            loop {
                let step = self.depart(room, user, looked_up).await?;
                if Instant::now() >= deadline {
                    // The next call finds out whether a room is left.
                    return Ok(Progress { more: true, ..progress });
                }
                match step {
                    Step::Left => break,
                    Step::Overtaken => {}
                    Step::Asks(candidates) => {
                        progress.more = true;
                        progress.candidates.extend(candidates);
                        break;
                    }
                }
            }
        }
        Ok(progress)
    }

    /// Removes the user from a room.
    async fn depart(&self, room: Uuid, user: &User, looked_up: Option<&LookedUp>) -> Result<Step> {
        let Some((seen, Some(member))) = self.store.get_member(room, user.id, Some(user.id)).await? else {
            return Ok(Step::Left);
        };
        let mut room = seen.room;
        room.revision += 1;
        let mut heir = None;
        if member.role == Role::Owner {
            let others = self.store.first_others(room.id, user.id, CANDIDATES).await?;
            heir = match heir_of(others, looked_up) {
                Ok(heir) => heir.map(|heir| Member { role: Role::Owner, ..heir }),
                Err(unknown) => return Ok(Step::Asks(unknown)),
            };
            if heir.is_none() {
                return Ok(step(self.store.delete(event::deleted(&room, user)?).await?));
            }
        }
        let event = event::left(&room, user, &member, heir.as_ref())?;
        let (set, removed) = (heir.into_iter().collect(), Some(user.id));
        Ok(step(self.store.change_members(MemberChange { set, removed, joins: None, event }).await?))
    }
}

fn step(has_changed: bool) -> Step {
    if has_changed { Step::Left } else { Step::Overtaken }
}

/// Returns the next owner among the first other members of a room, or those that must be looked up first.
fn heir_of(others: Vec<Member>, looked_up: Option<&LookedUp>) -> Result<Option<Member>, Vec<Uuid>> {
    let Some(LookedUp { active, inactive }) = looked_up else { return Ok(others.into_iter().next()) };
    let ids = others.iter().map(|member| member.user.id);
    let unknown = ids.filter(|id| !active.contains(id) && !inactive.contains(id)).collect::<Vec<_>>();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let first_active = others.iter().position(|member| active.contains(&member.user.id));
    Ok(others.into_iter().nth(first_active.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use confab_common::pg::PostgresConfig;
    use confab_common::testing;

    use super::*;
    use crate::store::Room;
    use crate::store::postgres::PostgresStore;
    use crate::store::sqlite::SqliteStore;

    fn user(username: &str) -> User {
        User { id: Uuid::now_v7(), username: username.into() }
    }

    fn member(user: &User) -> Member {
        Member { user: user.clone(), role: Role::Member, joined_at_ms: 2000 }
    }

    #[tokio::test]
    async fn a_membership_that_commits_after_the_departure_ends() {
        let config = PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() };
        let stores: [Arc<dyn Store>; 2] = [
            Arc::new(SqliteStore::open(&testing::directory().join("room.db")).unwrap()),
            Arc::new(PostgresStore::open(&testing::database().await, &config).await.unwrap()),
        ];
        for store in stores {
            let (ada, bob) = (user("ada"), user("bob"));
            let departures = Departures::new(store.clone());
            let room = Room {
                id: Uuid::now_v7(),
                name: "Tea".into(),
                description: String::new(),
                creator: ada.clone(),
                created_at_ms: 1000,
                revision: 0,
                private: false,
            };
            assert!(store.create(room.clone()).await.unwrap());
            assert_eq!(departures.remove_user(&bob, None).await.unwrap(), Progress::default());

            // The statement of an addition saw no record of the departure.
            let room = Room { revision: 1, ..room };
            let event = event::joined(&room, &ada, &member(&bob), &[]).unwrap();
            let late = MemberChange { set: vec![member(&bob)], removed: None, joins: None, event };
            assert!(store.change_members(late).await.unwrap());
            let now_ms = now_ms();
            departures.recheck(now_ms).await.unwrap();
            assert!(store.rooms_of(bob.id, 10).await.unwrap().is_empty());
            assert_eq!(store.unsettled(Uuid::nil(), 10).await.unwrap().len(), 1);
            departures.recheck(now_ms + RECHECK_FOR_MS).await.unwrap();
            assert_eq!(store.unsettled(Uuid::nil(), 10).await.unwrap(), []);
        }
    }

    #[test]
    fn the_first_active_candidate_inherits() {
        let members = [user("bob"), user("cleo"), user("dan")].map(|user| member(&user));
        let [bob, cleo, dan] = members.clone().map(|member| member.user.id);
        let heir = |active: &[Uuid], inactive: &[Uuid]| {
            let looked_up =
                LookedUp { active: active.iter().copied().collect(), inactive: inactive.iter().copied().collect() };
            heir_of(members.to_vec(), Some(&looked_up)).map(|heir| heir.map(|heir| heir.user.id))
        };
        assert_eq!(heir(&[cleo], &[bob]), Err(vec![dan]));
        assert_eq!(heir(&[cleo, dan], &[bob]), Ok(Some(cleo)));
        assert_eq!(heir(&[], &[bob, cleo, dan]), Ok(Some(bob)), "a suspension may end");
        assert_eq!(heir_of(Vec::new(), Some(&LookedUp::default())), Ok(None));
        assert_eq!(heir_of(members.to_vec(), None).unwrap().unwrap().user.id, bob);
    }
}
