//! A read of a room's history, and the parts of it that its readers requested.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use confab_common::{Error, Result};
use confab_identity::tokens;
use confab_proto::message::v1::ListEventsResponse;
use uuid::Uuid;

use crate::rooms::event::Entry;

/// The part of a room's history that a reader requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Only the newest `seq`, without events.
    End,
    /// The messages and room events after the `seq` `after`. With `changed_from`, also the messages from this `seq` to
    /// `after` that were changed after `after`.
    After { after: u64, changed_from: Option<u64> },
    /// This many of the newest events.
    Last(u32),
}

/// A part of a room's history, read after the reader's request. Its reader may read the room at its `last_seq`.
#[derive(Debug, Clone)]
pub struct Page {
    pub(super) read: Arc<Read>,
    pub(super) part: Range<usize>,
    pub(super) more: bool,
}

#[derive(Debug, Default)]
pub(super) struct Read {
    epoch: String,
    last_seq: u64,
    last_ordinal: u64,
    /// The events after this `seq`, unless the newest ones were requested.
    after: u64,
    events: Vec<Entry>,
    /// Whether there are further events in the direction of reading.
    pub(super) more: bool,
    /// The lowest `seq` of changed messages.
    changed_from: Option<u64>,
    /// The messages up to `after` that were changed after it, in rising `revision`.
    changed: Vec<Entry>,
    more_changed: bool,
    /// Of a private room: the users of the readers who are members.
    members: Option<HashSet<Uuid>>,
    /// The users of the readers whose credentials are not valid.
    refused: HashSet<Uuid>,
}

impl Page {
    pub fn epoch(&self) -> &str {
        &self.read.epoch
    }

    /// The room's newest `seq`.
    pub fn last_seq(&self) -> u64 {
        self.read.last_seq
    }

    /// The room's newest ordinal.
    pub fn last_ordinal(&self) -> u64 {
        self.read.last_ordinal
    }

    /// The events in rising `seq`.
    pub fn events(&self) -> &[Entry] {
        &self.read.events[self.part.clone()]
    }

    /// Whether there are further events in the direction of reading.
    pub fn more(&self) -> bool {
        self.more
    }

    /// The messages from the `seq` `from` to `after` that were changed after `after`, in rising `revision`; and whether
    /// these are all. The reader must have requested them.
    pub fn changed(&self, after: u64, from: u64) -> (Vec<&Entry>, bool) {
        self.read.changed(after, from)
    }
}

impl Wanted {
    /// The `seq` to read after, capped at the database's largest integer.
    pub(super) fn after(self) -> Option<u64> {
        match self {
            Self::After { after, .. } => Some(after.min(i64::MAX as u64)),
            Self::End | Self::Last(_) => None,
        }
    }

    /// The lowest `seq` of the changed messages, if they are requested.
    pub(super) fn changed_from(self) -> Option<u64> {
        match self {
            Self::After { changed_from, .. } => changed_from,
            Self::End | Self::Last(_) => None,
        }
    }
}

impl Read {
    /// The answer to a request for the events after `after`, and for the changed messages from `changed_from` on.
    pub(super) fn new(after: u64, changed_from: Option<u64>, page: &ListEventsResponse) -> Self {
        let ids = |ids: &[String]| ids.iter().filter_map(|id| id.parse().ok()).collect();
        Self {
            epoch: page.epoch.clone(),
            last_seq: page.last_seq,
            last_ordinal: page.last_ordinal,
            after,
            events: page.events.iter().filter_map(Entry::new).collect(),
            more: page.more,
            changed_from,
            changed: page.changed.iter().filter_map(Entry::new).collect(),
            more_changed: page.more_changed,
            members: page.private.then(|| ids(&page.readers)),
            refused: ids(&page.refused_readers),
        }
    }

    /// The range of the whole page.
    #[cfg(test)]
    pub(super) fn all(&self) -> Range<usize> {
        0..self.events.len()
    }

    /// Checks whether a user may read the room at the page's `last_seq`.
    pub(super) fn check(&self, user: Option<Uuid>) -> Result<()> {
        if user.is_some_and(|user| self.refused.contains(&user)) {
            return Err(tokens::refused());
        }
        let is_member = |members: &HashSet<Uuid>| user.is_some_and(|user| members.contains(&user));
        if self.members.as_ref().is_none_or(is_member) { Ok(()) } else { Err(Error::not_found("room")) }
    }

    /// The requested range of this page, and whether there are further events. `None` when a separate read would return
    /// many more events or changed messages.
    pub(super) fn part(&self, wanted: Wanted) -> Option<(Range<usize>, bool)> {
        let all = self.events.len();
        match wanted {
            Wanted::End => Some((all..all, false)),
            Wanted::Last(count) => Some((all.saturating_sub(count as usize)..all, self.more)),
            Wanted::After { after, changed_from } => {
                let begin = self.begin(after);
                let more = self.more && after < self.last_seq;
                let has_events = after >= self.after && (!more || begin <= all / 2);
                let has_changed = changed_from.is_none_or(|from| self.has_changed(after, from));
                (has_events && has_changed).then_some((begin..all, more))
            }
        }
    }

    /// Whether the changed messages of this reader are all here, or the first ones and at least half of those here.
    fn has_changed(&self, after: u64, from: u64) -> bool {
        let is_own = |entry: &&Entry| entry.seq >= from && entry.revision > after;
        let has_half = || 2 * self.changed.iter().filter(is_own).count() >= self.changed.len();
        after >= self.last_seq || (from >= self.lowest() && (!self.more_changed || has_half()))
    }

    /// The lowest `seq` of the messages whose changes are here.
    fn lowest(&self) -> u64 {
        self.changed_from.unwrap_or(self.after + 1)
    }

    /// The index of the first event after this `seq`.
    fn begin(&self, after: u64) -> usize {
        self.events.partition_point(|event| event.seq <= after)
    }

    /// The messages from the `seq` `from` to `after` that were changed after `after`, in rising `revision`; and whether
    /// these are all. Some of them may be events of this page, which begins at a lower `seq`.
    fn changed(&self, after: u64, from: u64) -> (Vec<&Entry>, bool) {
        if after >= self.last_seq {
            return (Vec::new(), true);
        }
        // Messages that were changed later may be missing.
        let known = match self.changed.last() {
            _ if !self.more_changed => u64::MAX,
            Some(last) => last.revision,
            None => self.after,
        };
        let is_wanted = |entry: &&Entry| entry.seq >= from && (after + 1..=known).contains(&entry.revision);
        let events = self.events[..self.begin(after)].iter();
        let mut changed = self.changed.iter().chain(events).filter(is_wanted).collect::<Vec<_>>();
        changed.sort_unstable_by_key(|entry| entry.revision);
        (changed, !self.more_changed)
    }
}
