//! Presence and typing: what clients see of other users is wrong for a bounded time only.

use std::time::Duration;

use super::super::history::At;
use super::super::signals::{Status, Watch};
use super::Judge;

/// Within this time a user who has connected is shown as online.
const ONLINE_WITHIN: Duration = Duration::from_secs(2);
/// Within this time a user whose last socket has ended is shown as offline, even if a gateway was killed.
const OFFLINE_WITHIN: Duration = Duration::from_secs(45);
/// How long a client may show a user as typing after the user's last sign.
const TYPING: Duration = Duration::from_secs(8);

impl Judge<'_> {
    pub(super) fn presence(&mut self) {
        let records = self.records;
        for watch in &records.signals.watches {
            self.watch(watch);
        }
        for shown in &records.signals.typing {
            let expires = shown.at + shown.expires_in;
            let mut signs = records
                .signals
                .typed
                .iter()
                .filter(|typed| (typed.user, typed.room) == (shown.user, shown.room) && typed.begun <= shown.at);
            if !signs.any(|typed| expires <= typed.ended + TYPING) && !self.is_disturbed(shown.at, shown.at) {
                self.verdict.counts.overtyped += 1;
                self.violated("I7", format!("{shown:?} is shown longer than {TYPING:?} after the last sign"));
            }
        }
    }

    /// A user who stays is shown as online soon and all the time; one who has left is shown as offline in time.
    fn watch(&mut self, watch: &Watch) {
        let stays = |from: At, to: At| {
            let mut stays = self.records.signals.stays.iter().filter(|stay| stay.user == watch.user);
            stays.any(|stay| stay.from <= from && to <= stay.until)
        };
        let touches = |from: At, to: At| {
            let mut stays = self.records.signals.stays.iter().filter(|stay| stay.user == watch.user);
            stays.any(|stay| stay.from <= to && from <= stay.until)
        };
        let mut wrong = Vec::new();
        let ends = watch.shown.iter().skip(1).map(|(at, _)| *at).chain([watch.until]);
        for ((from, status), until) in watch.shown.iter().zip(ends) {
            // The periods in which this may be shown, and the user has been the opposite for too long, end together.
            let is_wrong = match status {
                Status::Online => {
                    let due = until.saturating_sub(OFFLINE_WITHIN);
                    due >= watch.from && !touches(due, until)
                }
                Status::Offline => {
                    let mut stays = self.records.signals.stays.iter().filter(|stay| stay.user == watch.user);
                    stays.any(|stay| {
                        let wrong_from = (stay.from + ONLINE_WITHIN).max(*from);
                        wrong_from < until.min(stay.until) && !self.is_disturbed(stay.from, wrong_from)
                    })
                }
                Status::Unknown => stays(*from, until) && !self.is_disturbed(*from, until),
            };
            if is_wrong {
                wrong.push(format!("{} saw {} as {status:?} from {from:?} to {until:?}", watch.name, watch.user));
            }
        }
        for evidence in wrong {
            self.verdict.counts.mispresented += 1;
            self.violated("I7", evidence);
        }
    }

    /// Whether a fault that touches gateways or their bus may have delayed signals between two times.
    fn is_disturbed(&self, from: At, to: At) -> bool {
        self.records.faults.iter().any(|fault| {
            let spared = fault.terms.live.is_some() && !fault.terms.hints;
            !spared && fault.from <= to && fault.healed + fault.terms.recovers >= from
        })
    }
}
