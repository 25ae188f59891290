//! The objects of this installation. Only the installation that the owner object names writes and removes objects. Two
//! installations with the same configured store, such as production and a restored copy of its database, therefore do
//! not remove each other's files.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use confab_common::{Error, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::memory::Parts;
use crate::metrics::METRICS;
use crate::object::{Content, Found, Objects, Owner, Stored, Writer};
use crate::store::{Identity, Installation};

/// How long a positive check of the owner object is valid.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long a negative check is valid; an operator may have claimed the objects since.
const DOUBTED: Duration = Duration::from_secs(5);
/// Minimum age of a turn before it is written to the owner object: a failover of the database may lose younger turns.
const MIN_TURN_AGE: Duration = Duration::from_secs(600);

/// The objects, guarded by their ownership.
pub struct Owned {
    objects: Arc<dyn Objects>,
    store: Arc<dyn Identity>,
    min_turn_age: Duration,
    /// The last check of the owner. Locked during a check, so that concurrent callers share one check.
    seen: Mutex<Option<Look>>,
}

/// A check of the owner object.
struct Look {
    began: Instant,
    ended: Instant,
    /// Whether this installation was the owner.
    own: Result<bool>,
}

impl Owned {
    /// Guards these objects for the installation of this store.
    pub fn new(objects: Arc<dyn Objects>, store: Arc<dyn Identity>) -> Self {
        Self { objects, store, min_turn_age: MIN_TURN_AGE, seen: Mutex::default() }
    }

    /// Begins an object, like [`Objects::create`].
    ///
    /// # Errors
    /// `unavailable` also when another installation owns the objects: its sweep would remove this object.
    pub async fn create(&self, key: Uuid, parts: Parts) -> Result<Box<dyn Writer>> {
        self.ensure_own().await?;
        self.objects.create(key, parts).await
    }

    /// Reads an object, like [`Objects::read`], whichever installation owns it.
    pub async fn read(&self, key: Uuid, offset: u64, length: u64) -> Result<Option<Content>> {
        self.objects.read(key, offset, length).await
    }

    /// Removes an object, like [`Objects::delete`].
    ///
    /// # Errors
    /// `unavailable` also when another installation owns the objects.
    pub async fn delete(&self, key: Uuid) -> Result<()> {
        self.ensure_own().await?;
        self.objects.delete(key).await
    }

    /// Lists objects, like [`Objects::list`].
    pub async fn list(&self, after: Uuid, limit: u32) -> Result<Vec<Stored>> {
        self.objects.list(after, limit).await
    }

    /// Aborts old uploads, like [`Objects::abandon`].
    ///
    /// # Errors
    /// `unavailable` also when another installation owns the objects.
    pub async fn abandon(&self, before: SystemTime) -> Result<u64> {
        self.ensure_own().await?;
        self.objects.abandon(before).await
    }

    /// Returns whether this installation owns the objects, according to a recent check of the owner object.
    pub async fn are_own(&self) -> Result<bool> {
        let asked = Instant::now();
        let is_recent = |look: &Look| match look.own {
            Ok(own) => look.ended.elapsed() < if own { BELIEVED } else { DOUBTED },
            // The check failed while this caller waited. If every waiting caller checked again, each would wait as
            // long, one after another.
            Err(_) => look.ended >= asked,
        };
        self.own_by(is_recent).await
    }

    /// Checks that this installation owns the objects, with a check that begins after this call.
    ///
    /// # Errors
    /// `unavailable` when another installation does.
    pub async fn ensure_still_own(&self) -> Result<()> {
        let asked = Instant::now();
        if self.own_by(|look| look.began > asked).await? { Ok(()) } else { Err(Error::unavailable("file storage")) }
    }

    /// Returns whether this installation owns the objects, according to the last check if it is good enough, otherwise
    /// to a new check.
    async fn own_by(&self, is_good: impl FnOnce(&Look) -> bool) -> Result<bool> {
        let mut seen = self.seen.lock().await;
        match seen.as_ref().filter(|look| is_good(look)) {
            Some(look) => look.own.clone(),
            None => self.look_again(&mut seen, false).await,
        }
    }

    async fn look_again(&self, seen: &mut Option<Look>, sweeps: bool) -> Result<bool> {
        let began = Instant::now();
        let own = self.look(sweeps).await;
        *seen = Some(Look { began, ended: Instant::now(), own: own.clone() });
        own
    }

    /// Checks the owner object before a sweep, and advances the turn if it is old enough.
    ///
    /// # Errors
    /// When the owner cannot be determined.
    pub async fn begin_sweep(&self) -> Result<bool> {
        self.look_again(&mut *self.seen.lock().await, true).await
    }

    /// Checks the object store, like [`Objects::check`].
    pub async fn check(&self) -> std::result::Result<(), String> {
        let here = self.store.installation().await.map_err(|error| error.to_string())?;
        // Claims the objects if the store works; the check below reports faults.
        let _ = self.are_own().await;
        self.objects.check(owner(&here)).await
    }

    /// Makes this installation the owner, replacing the previous owner. Returns the new and the previous owner.
    ///
    /// # Errors
    /// When a store rejects the request.
    pub async fn take_over(&self) -> Result<(Owner, Option<Owner>)> {
        // The installation's id is created first, then its turns are renewed, so that a copy of this database is not
        // mistaken for it.
        self.store.installation().await?;
        self.store.renew_turns().await?;
        let owner = owner(&self.store.installation().await?);
        let before = self.objects.owner().await?;
        self.objects.set_owner(owner.clone(), None).await?;
        Ok((owner, before.map(|found| found.owner)))
    }

    /// Checks that this installation owns the objects, according to a recent check.
    ///
    /// # Errors
    /// `unavailable` when another installation does.
    pub async fn ensure_own(&self) -> Result<()> {
        if self.are_own().await? { Ok(()) } else { Err(Error::unavailable("file storage")) }
    }

    async fn look(&self, sweeps: bool) -> Result<bool> {
        let here = self.store.installation().await?;
        let found = match self.objects.owner().await? {
            Some(found) => found,
            None => {
                if self.objects.claim(owner(&here)).await? {
                    tracing::info!(installation = %here.id, "this installation now owns the object store");
                }
                // After concurrent claims, the owner object shows which claim succeeded; the answers do not.
                self.objects.owner().await?.ok_or_else(|| Error::unavailable("file storage"))?
            }
        };
        if found.copied && found.owner.installation == here.id {
            self.objects.set_owner(owner(&here), Some(&found)).await?;
            return Ok(note(true));
        }
        let own = is_of(&found.owner, &here);
        if !own {
            tracing::error!(
                owner = %found.owner.installation, owner_database = found.owner.database,
                installation = %here.id, database = here.database,
                "the objects (CONFAB_OBJECTS) belong to another installation, or to an installation that this one is a copy of: uploads \
                 are rejected and no object is removed. Give this installation its own bucket, prefix or directory; if it replaces \
                 the other installation, run `claim-objects`"
            );
        } else if sweeps && let Err(error) = self.take_turn(&here, &found).await {
            tracing::debug!(%error, "cannot advance the turn");
        }
        Ok(note(own))
    }

    /// Advances either the database or the owner object by one step, never both: each sees the other's step before it
    /// takes its own.
    async fn take_turn(&self, here: &Installation, found: &Found) -> Result<()> {
        if found.owner.turn == here.next {
            return self.store.turn(here.next).await;
        }
        if age(here.next) < self.min_turn_age {
            return Ok(());
        }
        self.objects.set_owner(Owner { turn: here.next, ..owner(here) }, Some(found)).await
    }
}

fn owner(here: &Installation) -> Owner {
    Owner { installation: here.id, database: here.database.clone(), turn: here.turn, file: String::new() }
}

/// Returns whether the owner is this installation on this database in its current state, not a copy of the database.
fn is_of(owner: &Owner, here: &Installation) -> bool {
    owner.installation == here.id && owner.database == here.database && [here.turn, here.next].contains(&owner.turn)
}

fn age(id: Uuid) -> Duration {
    let made = id.get_timestamp().map_or(Duration::ZERO, |time| Duration::new(time.to_unix().0, time.to_unix().1));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(made)
}

fn note(own: bool) -> bool {
    METRICS.foreign.set(if own { 0.0 } else { 1.0 });
    own
}

#[cfg(test)]
mod tests;
