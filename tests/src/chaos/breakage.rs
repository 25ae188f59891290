//! Promises that a run breaks on purpose, to test the checker.

use std::time::Duration;

use super::access::Change;
use super::checker::{Counts, Verdict};
use super::history::{At, Records, What};
use super::message::Op;
use crate::plan::Role;

/// How many members must be removed while the removal is broken: the second one shows that the run continues.
const REMOVALS: usize = 2;
/// How many edits must be made while edits are folded out of order.
const EDITS: usize = 20;
/// How many marks must be made while every mark moves its marker backwards.
const MARKS: usize = 60;
/// How many reactions must be set or ended while they are lost or doubled.
const REACTIONS: usize = 40;
/// How long a session must have ended while revocations are ignored: longer than events may still arrive (I6).
const ENDED_FOR: Duration = Duration::from_secs(6);

/// A way to break the promises on purpose, in programs with failpoints
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Breakage {
    /// Publish hints before the commit, which may then fail
    PublishBeforeCommit,
    /// Drop hints, and never poll the heads
    NoHintsNoHeads,
    /// Append a repeated message again
    SkipRepeatCheck,
    /// Show an edited message with the text before the edit, as if edits were folded out of order
    FoldOutOfOrder,
    /// Count edits and other changes as unread messages
    OrdinalCountsEdits,
    /// Let every mark move the read marker backwards
    MarkerMovedBackwards,
    /// Forget the last name of the reactions to each message
    ReactionLost,
    /// Count one reaction more with each name
    ReactionDoubled,
    /// Leave the sockets of removed members in their rooms
    SkipEviction,
    /// Treat private rooms as public in the log
    SkipMembership,
    /// Ignore logouts and changes of passwords at the gateways
    SkipRevocations,
}

impl Breakage {
    /// The cases in which the breakage does harm; none when it does harm without a fault.
    pub fn cases(self) -> &'static [&'static str] {
        match self {
            Self::PublishBeforeCommit => &["message-killed-before-commit"],
            Self::NoHintsNoHeads | Self::SkipRepeatCheck => &["sent-thrice"],
            Self::FoldOutOfOrder
            | Self::OrdinalCountsEdits
            | Self::MarkerMovedBackwards
            | Self::ReactionLost
            | Self::ReactionDoubled
            | Self::SkipEviction
            | Self::SkipMembership
            | Self::SkipRevocations => &[],
        }
    }

    /// The failpoints, and the programs that have them.
    pub fn points(self) -> (Role, &'static [&'static str]) {
        match self {
            Self::PublishBeforeCommit => (Role::Message, &["publish-before-commit"]),
            Self::NoHintsNoHeads => (Role::Gateway, &["drop-hints", "skip-heads"]),
            Self::SkipRepeatCheck => (Role::Message, &["skip-repeat-check"]),
            Self::FoldOutOfOrder => (Role::Message, &["fold-out-of-order"]),
            Self::OrdinalCountsEdits => (Role::Message, &["ordinal-counts-edits"]),
            Self::MarkerMovedBackwards => (Role::Message, &["marker-moved-backwards"]),
            Self::ReactionLost => (Role::Message, &["reaction-lost"]),
            Self::ReactionDoubled => (Role::Message, &["reaction-doubled"]),
            Self::SkipEviction => (Role::Gateway, &["skip-eviction"]),
            Self::SkipMembership => (Role::Message, &["skip-membership"]),
            Self::SkipRevocations => (Role::Gateway, &["skip-revocations"]),
        }
    }

    /// Whether the clients have done by now what shows the breakage, after it began.
    pub fn is_exercised(self, records: &Records, begun: At, now: At) -> bool {
        let is_removal = |what: &What| matches!(what, What::Room { change: Change::Left { .. }, .. });
        let is_edit = |what: &What| matches!(what, What::Message { op: Op::Edit, .. });
        match self {
            Self::PublishBeforeCommit | Self::NoHintsNoHeads | Self::SkipRepeatCheck => true,
            Self::MarkerMovedBackwards => records.marks.iter().filter(|mark| mark.begun >= begun).count() >= MARKS,
            Self::FoldOutOfOrder | Self::OrdinalCountsEdits => {
                let edits = records.known_acts().filter(|act| is_edit(&act.what) && act.begun() >= begun);
                edits.count() >= EDITS
            }
            Self::ReactionLost | Self::ReactionDoubled => {
                let is_reaction = |what: &What| matches!(what, What::Reaction { .. });
                let reactions = records.known_acts().filter(|act| is_reaction(&act.what) && act.begun() >= begun);
                reactions.count() >= REACTIONS
            }
            Self::SkipEviction | Self::SkipMembership => {
                let removals = records.known_acts().filter(|act| is_removal(&act.what) && act.begun() >= begun);
                removals.count() >= REMOVALS
            }
            Self::SkipRevocations => {
                let mut ends = records.receivers.iter().filter_map(|receiver| receiver.logged_out);
                ends.any(|ended| ended >= begun && ended + ENDED_FOR <= now)
            }
        }
    }

    /// Returns whether the checker detected the breakage itself, not only its side effects. The rights of users can be
    /// broken without side effects, so the checker must detect nothing else then.
    pub fn is_noticed(self, verdict: &Verdict) -> bool {
        let counts = &verdict.counts;
        match self {
            Self::PublishBeforeCommit => counts.invented > 0,
            Self::NoHintsNoHeads => counts.lost > 0,
            Self::SkipRepeatCheck => counts.repeated > 0,
            Self::FoldOutOfOrder => counts.misfolded > 0 && counts.broken() == counts.misfolded,
            Self::OrdinalCountsEdits => counts.miscounted > 0 && counts.broken() == counts.miscounted,
            Self::MarkerMovedBackwards => counts.receded > 0 && counts.broken() == counts.receded,
            Self::ReactionLost | Self::ReactionDoubled => counts.misreacted > 0 && counts.broken() == counts.misreacted,
            Self::SkipEviction => counts.leaked > 0 && counts.broken() == counts.leaked,
            Self::SkipMembership => counts.trespassed > 0 && counts.broken() == counts.trespassed,
            Self::SkipRevocations => counts.outlived > 0 && counts.broken() == counts.outlived,
        }
    }
}

impl Counts {
    /// Returns how often a promise about messages, rights or sessions was broken.
    fn broken(&self) -> usize {
        let messages = self.lost + self.repeated + self.reordered + self.invented;
        let changes = self.misfolded + self.misreacted + self.misreplied;
        let markers = self.receded + self.miscounted;
        messages + changes + markers + self.leaked + self.trespassed + self.outlived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_broken_promise_may_be_detected() {
        let of = |counts| Verdict { counts, ..Verdict::default() };
        let leaked = Counts { leaked: 3, ..Counts::default() };
        assert!(Breakage::SkipEviction.is_noticed(&of(leaked.clone())));
        assert!(!Breakage::SkipMembership.is_noticed(&of(leaked.clone())));
        assert!(!Breakage::SkipEviction.is_noticed(&of(Counts { lost: 1, ..leaked })));
        assert!(!Breakage::SkipRevocations.is_noticed(&of(Counts::default())));
    }
}
