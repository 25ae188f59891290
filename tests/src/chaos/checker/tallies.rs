//! The counts of reactions and replies, added up from the log without a shortcut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::super::message::{Op, Replies, Stored, Values, tally};

/// Yields the counts that each entry of a room's log gives a message: the `seq` of the entry, that of the message, and
/// its new counts.
pub fn of(history: &[Stored]) -> Vec<(u64, u64, Values)> {
    let mut users = HashMap::<u64, BTreeMap<&str, BTreeSet<Uuid>>>::new();
    let mut replies = HashMap::<u64, Replies>::new();
    let mut counts = Vec::new();
    for stored in history {
        let seq = stored.seen.seq;
        if let Some(root) = stored.thread {
            let replies = replies.entry(root).or_default();
            *replies = Replies { count: replies.count + 1, last: seq };
            counts.push((seq, root, Values::Replies(*replies)));
        }
        match stored.act {
            Some((target, Op::React)) => {
                let users = users.entry(target).or_default();
                for toggle in &stored.toggles {
                    let of_name = users.entry(&toggle.name).or_default();
                    _ = if toggle.on { of_name.insert(toggle.user) } else { of_name.remove(&toggle.user) };
                }
                let present = users.iter().map(|(name, users)| (*name, users.len() as u64));
                counts.push((seq, target, Values::Reactions(tally(present.filter(|(_, count)| *count > 0)))));
            }
            Some((target, Op::Delete)) => {
                users.remove(&target);
                let root = history.get((target as usize).wrapping_sub(1)).and_then(|reply| reply.thread);
                if let Some(root) = root {
                    let replies = replies.entry(root).or_default();
                    replies.count = replies.count.saturating_sub(1);
                    counts.push((seq, root, Values::Replies(*replies)));
                }
            }
            _ => {}
        }
    }
    counts
}
