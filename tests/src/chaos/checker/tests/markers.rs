//! Markers, unread counts and ordinals.

use super::super::super::message::Op;
use super::super::super::signals::{Mark, Reading};
use super::*;

fn mark(begun: f64, seq: u64, unread: bool, outcome: Outcome) -> Mark {
    Mark { user: SENDER, room: ROOM, seq, unread, attempt: attempt(begun, begun + 0.1, outcome) }
}

fn reading(at: f64, read_seq: u64, unread: u64) -> Reading {
    let begun = Some(s(at - 0.1));
    Reading { user: SENDER, room: ROOM, device: "a device", begun, at: s(at), read_seq, unread, last: at > 11.0 }
}

/// Ten messages with ordinals; the member marks the sixth, then the third as unread, and then the fifth.
fn read(records: &mut Records) {
    for (index, stored) in records.history.get_mut(&ROOM).unwrap().iter_mut().enumerate() {
        stored.ordinal = Some(index as u64 + 1);
    }
    let signals = &mut records.signals;
    signals.marks =
        vec![mark(6.5, 6, false, Outcome::Done), mark(7.5, 3, true, Outcome::Done), mark(8.5, 5, false, Outcome::Done)];
    signals.readings =
        vec![reading(7.0, 6, 0), reading(8.0, 3, 4), reading(9.0, 5, 3), reading(11.5, 5, 5), reading(11.6, 5, 5)];
}

#[track_caller]
fn wrong(spoil: impl FnOnce(&mut Records)) -> (usize, usize, usize) {
    let counts = breaks_or_keeps(spoil);
    (counts.misnumbered, counts.misread, counts.moved_back)
}

/// Expects that a verdict with violations has only those of markers.
#[track_caller]
fn breaks_or_keeps(spoil: impl FnOnce(&mut Records)) -> Counts {
    let mut records = good();
    read(&mut records);
    spoil(&mut records);
    let verdict = check(&records);
    let counts = &verdict.counts;
    let wrong = counts.misnumbered + counts.misread + counts.moved_back;
    assert_eq!(verdict.violations.len(), wrong, "{:?}", verdict.violations);
    verdict.counts
}

#[test]
fn right_markers_are_no_violation() {
    assert_eq!(wrong(|_| ()), (0, 0, 0));
}

#[test]
fn wrong_ordinals_are_detected_without_the_counts_that_follow() {
    let skipped = |records: &mut Records| {
        let history = records.history.get_mut(&ROOM).unwrap();
        history[7..].iter_mut().for_each(|stored| stored.ordinal = stored.ordinal.map(|ordinal| ordinal + 1));
        let unread = |reading: &mut Reading| reading.unread += u64::from(reading.last);
        records.signals.readings.iter_mut().for_each(unread);
    };
    assert_eq!(wrong(skipped), (1, 0, 0));
}

#[test]
fn wrong_counts_and_lost_marks_are_detected() {
    let last = |read_seq, unread| {
        move |records: &mut Records| {
            let last = records.signals.readings.iter_mut().filter(|reading| reading.last);
            last.for_each(|reading| (reading.read_seq, reading.unread) = (read_seq, unread));
        }
    };
    assert_eq!(wrong(last(5, 4)), (0, 1, 0));
    // The last mark is lost: the marker falls behind its acknowledgement.
    assert_eq!(wrong(last(4, 6)), (0, 1, 2));
    assert_eq!(wrong(last(7, 3)), (0, 0, 0));
    assert_eq!(wrong(|records| records.signals.readings[4].unread = 4), (0, 1, 0));
}

#[test]
fn marker_moves_backwards_only_on_request() {
    assert_eq!(wrong(|records| drop(records.signals.marks.remove(1))), (0, 1, 4));
    let unknown = |records: &mut Records| records.signals.marks[1].attempt.outcome = Outcome::Silent;
    assert_eq!(wrong(unknown), (0, 0, 0));
    // An event may come late.
    assert_eq!(wrong(|records| records.signals.readings[1].begun = None), (0, 0, 0));
}

#[test]
fn deleted_messages_and_replies_are_not_unread() {
    let history = |records: &Records| records.history[&ROOM].clone();
    let mut records = good();
    read(&mut records);
    let mut history = history(&records);
    history.push(Stored { act: Some((9, Op::Delete)), countable: false, ordinal: None, ..stored(11) });
    history[7].countable = false;
    assert_eq!(super::super::markers::unread(&history, 5), 3);
}
