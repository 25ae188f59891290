//! The rows that wait for a lane, and the rows of partitions that are aside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::group::Group;
use super::reacting::{Reacting, Target};

/// Maximum events in one append, unless a single caller sends more.
const BATCH_ROWS: usize = 256;
/// Maximum bytes in one append, unless a single caller sends more (256 KiB).
const BATCH_BYTES: usize = 256 * 1024;
/// Maximum bytes that wait for one lane (8 MiB).
pub(super) const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// New rows are rejected while a row has waited longer than this. A shorter stall of a disk causes no rejection.
pub(super) const QUEUE_AGE: Duration = Duration::from_secs(1);
/// The limit for a partition whose head is locked: its senders are rejected before gateways treat the replica as slow.
const ASIDE_AGE: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Queue {
    groups: VecDeque<Group>,
    reacting: Reacting,
    /// The groups of partitions that are aside.
    aside: BTreeMap<u32, VecDeque<Group>>,
    /// The bytes of all waiting groups.
    bytes: usize,
    pub closed: bool,
}

impl Queue {
    /// Queues a group, or rejects the part that cannot wait.
    pub fn admit(&mut self, group: Group) {
        if self.closed {
            return group.refuse("leaving");
        }
        if self.bytes > 0 && self.bytes + group.bytes > QUEUE_BYTES {
            return group.refuse("bytes");
        }
        if self.aside.is_empty() {
            return self.push(None, group);
        }
        group.divide(&self.aside).into_iter().for_each(|(aside, part)| self.push(aside, part));
    }

    /// Queues reactions to one message, or rejects them.
    pub fn admit_reactions(&mut self, target: Target, group: Group) {
        if self.closed {
            return group.refuse("leaving");
        }
        if self.bytes > 0 && self.bytes + group.bytes > QUEUE_BYTES {
            return group.refuse("bytes");
        }
        if self.reacting.oldest(target).is_some_and(|oldest| oldest.arrived + QUEUE_AGE < group.arrived) {
            return group.refuse("age");
        }
        self.bytes += group.bytes;
        self.reacting.push(target, group);
    }

    fn push(&mut self, aside: Option<u32>, group: Group) {
        let age = if aside.is_some() { ASIDE_AGE } else { QUEUE_AGE };
        if self.place(aside).front().is_some_and(|oldest| oldest.arrived + age < group.arrived) {
            return group.refuse("age");
        }
        self.bytes += group.bytes;
        self.place(aside).push_back(group);
    }

    fn place(&mut self, aside: Option<u32>) -> &mut VecDeque<Group> {
        match aside {
            Some(partition) => self.aside.entry(partition).or_default(),
            None => &mut self.groups,
        }
    }

    pub fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Takes all rows that wait for the lane, up to one batch, and the reactions that are due, up to one more.
    pub fn take(&mut self) -> Vec<Group> {
        let mut taken = take(&mut self.groups, &mut self.bytes);
        for group in self.reacting.take(BATCH_ROWS, self.closed) {
            let partition = group.rows().next().map(|row| row.data.partition);
            match partition.and_then(|partition| self.aside.get_mut(&partition)) {
                Some(aside) => aside.push_back(group),
                None => {
                    self.bytes -= group.bytes;
                    taken.push(group);
                }
            }
        }
        taken
    }

    /// Returns when the next reactions are due; `None` without reactions.
    pub fn reactions_due(&self) -> Option<Instant> {
        self.reacting.due()
    }

    /// Takes all rows of a partition that is aside, up to one batch.
    pub fn take_aside(&mut self, partition: u32) -> Vec<Group> {
        self.aside.get_mut(&partition).map(|groups| take(groups, &mut self.bytes)).unwrap_or_default()
    }

    /// Sets the partitions of these groups aside, with their queued rows behind these groups. Returns the partitions.
    pub fn set_aside(&mut self, locked: Vec<Group>) -> BTreeSet<u32> {
        let partitions = locked.iter().flat_map(Group::rows).map(|row| row.data.partition).collect::<BTreeSet<_>>();
        self.aside.extend(partitions.iter().map(|partition| (*partition, VecDeque::new())));
        self.bytes += locked.iter().map(|group| group.bytes).sum::<usize>();
        for group in locked.into_iter().chain(mem::take(&mut self.groups)) {
            for (aside, part) in group.divide(&self.aside) {
                self.place(aside).push_back(part);
            }
        }
        partitions
    }

    /// Returns rows to the front of their partition's queue, or rejects rows that have waited too long: they were not
    /// appended.
    pub fn put_back(&mut self, partition: u32, locked: Vec<Group>) {
        let now = Instant::now();
        for group in locked.into_iter().rev() {
            if group.arrived + ASIDE_AGE < now {
                group.refuse("age");
            } else {
                self.bytes += group.bytes;
                self.place(Some(partition)).push_front(group);
            }
        }
    }

    /// Ends the partition's time aside.
    pub fn bring_back(&mut self, partition: u32) {
        self.aside.remove(&partition);
    }
}

fn take(groups: &mut VecDeque<Group>, bytes_left: &mut usize) -> Vec<Group> {
    let (mut taken, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while let Some(group) = groups.pop_front() {
        rows += group.rows().count();
        bytes += group.bytes;
        if !taken.is_empty() && (rows > BATCH_ROWS || bytes > BATCH_BYTES) {
            groups.push_front(group);
            break;
        }
        *bytes_left -= group.bytes;
        taken.push(group);
    }
    taken
}
