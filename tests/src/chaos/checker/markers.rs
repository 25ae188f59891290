//! Read markers: none moves backwards unless its user marks messages as unread, and the unread messages that each
//! gateway shows are those that history has above the marker.

use std::time::Duration;

use uuid::Uuid;

use super::super::history::{At, Mark};
use super::Judge;

/// How long after a mark without an answer its effect may still follow.
const LATE: Duration = Duration::from_secs(30);

/// What is known of the marker of a room.
#[derive(Default)]
struct Known {
    /// The marker in the last answer.
    seq: u64,
    /// Marks as unread without an answer, with the time until which they may have an effect.
    pending: Vec<(u64, At)>,
}

impl Known {
    /// The lowest `seq` at which the marker may stand at a time.
    fn lowest(&self, at: At) -> u64 {
        let pending = self.pending.iter().filter(|(_, until)| at <= *until).map(|(seq, _)| *seq);
        pending.chain([self.seq]).min().unwrap_or_default()
    }

    fn took(&mut self, mark: &Mark) {
        match mark.stands_at {
            Some(seq) => self.seq = seq,
            None if mark.back => self.pending.push((mark.seq, mark.ended + LATE)),
            None => {}
        }
    }
}

impl Judge<'_> {
    pub(super) fn markers(&mut self) {
        let rooms = self.records.marks.iter().map(|mark| mark.room).collect::<std::collections::BTreeSet<_>>();
        for room in rooms {
            let known = self.marks(room);
            self.unread(room, &known);
        }
    }

    /// No marker moves backwards.
    fn marks(&mut self, room: Uuid) -> Known {
        let records = self.records;
        let mut known = Known::default();
        for mark in records.marks.iter().filter(|mark| mark.room == room) {
            self.verdict.counts.marks += usize::from(mark.stands_at.is_some());
            if records.restored.is_some_and(|restored| mark.ended >= restored.copied) {
                // A restored database has its former markers.
                known.seq = 0;
            }
            let lowest = known.lowest(mark.ended);
            if let Some(seq) = mark.stands_at.filter(|seq| !mark.back && *seq < lowest) {
                self.verdict.counts.receded += 1;
                self.violated("unread", format!("room {room}: the marker moved back from {lowest} to {seq}: {mark:?}"));
            }
            known.took(mark);
        }
        known
    }

    /// All gateways show the marker, and the messages above it that are not deleted.
    fn unread(&mut self, room: Uuid, known: &Known) {
        let records = self.records;
        let history = records.present.get(&room).map_or(&[][..], Vec::as_slice);
        for marker in records.markers.iter().filter(|marker| marker.room == room) {
            let is_unread = |seq: u64, deleted: bool| seq > marker.seq && !deleted;
            let messages = history.iter().filter_map(|seen| Some((seen.seq, seen.state?.deleted)));
            let counted = messages.filter(|(seq, deleted)| is_unread(*seq, *deleted)).count() as u64;
            if marker.unread != counted {
                self.verdict.counts.miscounted += 1;
                self.violated("unread", format!("{marker:?}, but history has {counted} messages above the marker"));
            }
            let restored = records.restored.is_some();
            if !restored && marker.seq < known.lowest(records.ended) {
                self.verdict.counts.receded += 1;
                self.violated("unread", format!("{marker:?} at the end, but the last mark was {}", known.seq));
            }
        }
    }
}
