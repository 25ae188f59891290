//! The reactions that wait for a lane. Those to one message are appended together, at most every 100 ms, so that a
//! message to which thousands of users react costs few events. They do not delay other rows: reactions may overtake
//! messages and be overtaken by them, but those to one message keep their order.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::group::Group;
use crate::store::{EventData, MAX_REACTED, Op};

/// The shortest time between two appends of reactions to one message.
pub const FLOOR: Duration = Duration::from_millis(100);

/// A room, and the `seq` of a message in it.
pub type Target = (Uuid, u64);

/// Returns the message to which an event reacts.
pub fn target_of(data: &EventData) -> Option<Target> {
    data.change.filter(|change| change.op == Op::React).map(|change| (data.room, change.target))
}

/// The waiting reactions of a lane, by message. The queue bounds their bytes.
#[derive(Default)]
pub struct Reacting {
    waiting: HashMap<Target, VecDeque<Group>>,
    /// Until when further reactions to messages wait.
    floors: HashMap<Target, Instant>,
}

impl Reacting {
    pub fn push(&mut self, target: Target, group: Group) {
        self.waiting.entry(target).or_default().push_back(group);
    }

    /// Returns the oldest group of a message.
    pub fn oldest(&self, target: Target) -> Option<&Group> {
        self.waiting.get(&target)?.front()
    }

    /// Returns when the next reactions can be appended.
    pub fn due(&self) -> Option<Instant> {
        let floors = self.waiting.keys().map(|target| self.floors.get(target).copied());
        floors.map(|floor| floor.unwrap_or_else(Instant::now)).min()
    }

    /// Takes the groups that can be appended, up to the number of rows. At the end of the lane nothing waits for the
    /// time.
    pub fn take(&mut self, mut rows: usize, ends: bool) -> Vec<Group> {
        let now = Instant::now();
        self.floors.retain(|_, floor| *floor > now);
        let due = self.waiting.keys().filter(|target| ends || !self.floors.contains_key(target));
        // The longest waiting first.
        let mut due: Vec<(Duration, Target)> =
            due.filter_map(|target| Some((self.oldest(*target)?.waited(now), *target))).collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        let mut taken = Vec::new();
        for (_, target) in due {
            let Some(groups) = self.waiting.get_mut(&target) else { continue };
            let mut of_target = 0;
            while let Some(group) = groups.front() {
                let next = group.rows().count();
                if of_target > 0 && (next > rows || of_target + next > MAX_REACTED) {
                    break;
                }
                of_target += next;
                rows = rows.saturating_sub(next);
                taken.extend(groups.pop_front());
            }
            if groups.is_empty() {
                self.waiting.remove(&target);
            }
            self.floors.insert(target, now + FLOOR);
            if rows == 0 {
                break;
            }
        }
        taken
    }
}
