//! Compares the objects with the files, and removes objects that belong to no file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use confab_common::Result;
use uuid::Uuid;

use crate::metrics::METRICS;
use crate::object::Stored;
use crate::owned::Owned;
use crate::store::Store;

/// How many files, and how many objects, are compared at once.
const PAGE: u32 = 1000;

/// Searches for orphans.
pub struct Sweep {
    store: Arc<dyn Store>,
    objects: Arc<Owned>,
    /// Minimum age of an orphan: a younger object may belong to an upload in progress.
    age: Duration,
    page: u32,
}

/// The findings of a sweep.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Orphans {
    /// Objects without a file, removed.
    pub objects: u64,
    /// Files without an object.
    pub files: u64,
    /// Unfinished uploads to the object store, aborted.
    pub uploads: u64,
}

impl Sweep {
    /// Creates a sweep for which no object younger than `age` is an orphan.
    pub fn new(store: Arc<dyn Store>, objects: Arc<Owned>, age: Duration) -> Self {
        Self { store, objects, age, page: PAGE }
    }

    /// Sweeps without end, at this interval.
    pub async fn run(self, every: Duration) {
        loop {
            match self.once().await {
                Ok(orphans) => count(orphans),
                Err(error) => tracing::warn!(%error, "a sweep for orphans failed"),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Goes through all files and objects once, in the order of ids, if this installation owns the objects.
    async fn once(&self) -> Result<Orphans> {
        if !self.objects.begin_sweep().await? {
            return Ok(Orphans::default());
        }
        let before = SystemTime::now().checked_sub(self.age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut orphans = Orphans::default();
        let mut after = Uuid::nil();
        loop {
            // In this order, because a file's object exists before its row does.
            let ids = self.store.known(after, self.page).await?;
            let objects = self.objects.list(after, self.page).await?;
            // A full page does not show which later ids exist.
            let ends = [end(&ids, self.page, |id| *id), end(&objects, self.page, |object| object.key)];
            let end = ends.into_iter().flatten().min();
            let within = |id: &Uuid| end.is_none_or(|end| *id <= end);
            let ids = ids.into_iter().filter(within).collect::<BTreeSet<_>>();
            let keys = objects.iter().map(|object| object.key).filter(within).collect::<BTreeSet<_>>();
            for object in objects.iter().filter(|object| within(&object.key) && !ids.contains(&object.key)) {
                orphans.objects += u64::from(self.remove(object, before).await?);
            }
            for id in ids.difference(&keys) {
                orphans.files += u64::from(self.is_without_bytes(*id).await?);
            }
            match end {
                Some(end) => after = end,
                None => break,
            }
        }
        orphans.uploads = self.objects.abandon(before).await?;
        Ok(orphans)
    }

    /// Removes an object unless it is young or its file exists by now. Returns whether it was removed.
    async fn remove(&self, object: &Stored, before: SystemTime) -> Result<bool> {
        if object.modified > before || self.store.get(object.key).await?.is_some() {
            return Ok(false);
        }
        tracing::warn!(object = %object.key, "removing an object that belongs to no file");
        self.objects.delete(object.key).await?;
        Ok(true)
    }

    /// Returns whether a file without an object still exists: an object is removed after its file.
    async fn is_without_bytes(&self, id: Uuid) -> Result<bool> {
        let stands = self.store.get(id).await?.is_some();
        if stands {
            tracing::error!(file = %id, "the content of a file is missing");
        }
        Ok(stands)
    }
}

/// Returns the last id of a page, if the page is full.
fn end<T>(page: &[T], limit: u32, id: impl Fn(&T) -> Uuid) -> Option<Uuid> {
    page.last().filter(|_| page.len() >= limit as usize).map(id)
}

fn count(orphans: Orphans) {
    for (kind, count) in [("object", orphans.objects), ("file", orphans.files), ("upload", orphans.uploads)] {
        METRICS.orphans.add(kind, count);
    }
}

#[cfg(test)]
mod tests;
