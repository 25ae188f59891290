//! Unread counts: ordinals count the messages of the log, every device has the same marker and count after the run,
//! and markers move backwards only when their user wants it.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::super::history::{At, Outcome};
use super::super::message::{Op, Stored};
use super::super::signals::{Mark, Reading};
use super::Judge;

impl Judge<'_> {
    pub(super) fn markers(&mut self) {
        let signals = &self.records.signals;
        let misnumbered = self.ordinals();
        let mut readings = BTreeMap::<(Uuid, Uuid), Vec<&Reading>>::new();
        for reading in &signals.readings {
            readings.entry((reading.user, reading.room)).or_default().push(reading);
        }
        let mut marks = HashMap::<(Uuid, Uuid), Vec<&Mark>>::new();
        for mark in &signals.marks {
            marks.entry((mark.user, mark.room)).or_default().push(mark);
        }
        for (place, readings) in readings {
            let marks = marks.remove(&place).unwrap_or_default();
            self.backwards(&readings, &marks);
            self.last_readings(place.1, &readings, &marks, misnumbered.contains(&place.1));
        }
    }

    /// The ordinal of a message is the number of countable messages up to it. Returns the rooms with other ordinals.
    fn ordinals(&mut self) -> HashSet<Uuid> {
        let records = self.records;
        let mut misnumbered = HashSet::new();
        for (room, history) in &records.history {
            if history.iter().all(|stored| stored.ordinal.is_none()) {
                continue;
            }
            let mut count = 0;
            for stored in history {
                count += u64::from(stored.countable);
                let right = stored.countable.then_some(count);
                if stored.ordinal != right {
                    let (seq, ordinal) = (stored.seen.seq, stored.ordinal);
                    self.verdict.counts.misnumbered += 1;
                    self.violated("I5", format!("message {seq} of room {room} has ordinal {ordinal:?}, not {right:?}"));
                    misnumbered.insert(*room);
                    break;
                }
            }
        }
        misnumbered
    }

    /// I3: a request that began after an answer gets no lower marker.
    fn backwards(&mut self, readings: &[&Reading], marks: &[&Mark]) {
        for later in readings {
            let Some(begun) = later.begun else { continue };
            let earlier = readings.iter().find(|earlier| {
                earlier.begun.is_some_and(|from| {
                    earlier.at < begun
                        && later.read_seq < earlier.read_seq
                        && !marks.iter().any(|mark| mark.unread && mark.attempt.begun <= later.at && end(mark) >= from)
                }) && !self.is_restored_between(earlier.at, later.at)
            });
            if let Some(earlier) = earlier {
                self.verdict.counts.moved_back += 1;
                self.violated("I3", format!("a marker moved backwards: {earlier:?}, then {later:?}"));
            }
        }
    }

    /// I1 and I5: after the run, each device has the marker that the marks have made, and the count of the log.
    fn last_readings(&mut self, room: Uuid, readings: &[&Reading], marks: &[&Mark], misnumbered: bool) {
        let records = self.records;
        let history = records.history.get(&room).map_or(&[][..], Vec::as_slice);
        let head = history.len() as u64;
        // A mark as unread that may have come later than a mark may have taken it back.
        let stands = |mark: &&&Mark| {
            let lasts = marks.iter().all(|other| !other.unread || end(other) < mark.attempt.begun);
            !mark.unread && mark.attempt.outcome == Outcome::Done && lasts
        };
        let marked = marks.iter().filter(stands).filter(|mark| !self.is_restored_between(mark.attempt.begun, At::MAX));
        let least = marked.map(|mark| mark.seq.min(head)).max().unwrap_or_default();
        let mut last = readings.iter().filter(|reading| reading.last);
        let Some(first) = last.clone().next() else { return };
        let unread = unread(history, first.read_seq);
        let wrong = if first.read_seq < least {
            Some(("I1", format!("{first:?}, but the member marked {least}")))
        } else if first.unread != unread && !misnumbered {
            Some(("I5", format!("{first:?}, but the log has {unread} unread messages")))
        } else {
            let other = last.find(|other| (other.read_seq, other.unread) != (first.read_seq, first.unread));
            other.map(|other| ("I5", format!("two devices differ: {first:?} and {other:?}")))
        };
        if let Some((promise, evidence)) = wrong {
            self.verdict.counts.misread += 1;
            self.violated(promise, evidence);
        }
    }

    fn is_restored_between(&self, from: At, to: At) -> bool {
        self.records.restored.is_some_and(|restored| from <= restored.renewed && to >= restored.copied)
    }
}

/// Returns when a mark may have been stored at the latest; without an answer, at any time.
fn end(mark: &Mark) -> At {
    match mark.attempt.outcome {
        Outcome::Done | Outcome::Acked(_) => mark.attempt.ended,
        _ => At::MAX,
    }
}

/// Returns how many messages above a marker count as unread.
pub(super) fn unread(history: &[Stored], read_seq: u64) -> u64 {
    let deletions = history.iter().filter_map(|stored| stored.act).filter(|(_, op)| *op == Op::Delete);
    let deleted = deletions.map(|(target, _)| target).collect::<HashSet<_>>();
    let counts =
        |stored: &&Stored| stored.countable && stored.seen.seq > read_seq && !deleted.contains(&stored.seen.seq);
    history.iter().filter(counts).count() as u64
}
