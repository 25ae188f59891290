//! Read markers.

use super::super::super::history::{Mark, Marker};
use super::*;

fn mark(begun: f64, seq: u64, back: bool, stands_at: Option<u64>) -> Mark {
    Mark { room: ROOM, seq, back, begun: s(begun), ended: s(begun + 0.1), stands_at }
}

/// The records of a run with these marks, and this marker at the end.
fn with(marks: Vec<Mark>, seq: u64, unread: u64) -> impl FnOnce(&mut Records) {
    move |records| {
        let present = (1..=10).map(seen);
        records.present.insert(ROOM, present.collect());
        records.marks = marks;
        records.markers = vec![Marker { room: ROOM, seq, unread }];
    }
}

#[test]
fn unread_messages_are_those_above_the_marker() {
    let counts = keeps(with(vec![mark(1.0, 2, false, Some(2)), mark(2.0, 4, false, Some(4))], 4, 6)).counts;
    assert_eq!((counts.marks, counts.miscounted), (2, 0));
    for wrong in [5, 7] {
        assert_eq!(breaks("unread", with(vec![mark(1.0, 4, false, Some(4))], 4, wrong)).miscounted, 1);
    }
}

#[test]
fn a_marker_moves_back_only_on_request() {
    let forward = mark(1.0, 8, false, Some(8));
    keeps(with(vec![forward.clone(), mark(2.0, 2, true, Some(2)), mark(3.0, 1, false, Some(2))], 2, 8));
    let counts = breaks("unread", with(vec![forward.clone(), mark(2.0, 2, false, Some(2))], 2, 8));
    assert_eq!((counts.receded, counts.miscounted), (1, 0));
    let counts = breaks("unread", with(vec![forward.clone()], 2, 8));
    assert_eq!((counts.receded, counts.miscounted), (1, 0));
    // Without an answer, the marker may have moved back, or may still do so.
    let silent = mark(2.0, 2, true, None);
    keeps(with(vec![forward.clone(), silent.clone(), mark(3.0, 1, false, Some(2))], 2, 8));
    keeps(with(vec![forward, silent, mark(3.0, 5, false, Some(8))], 8, 2));
}

#[test]
fn a_restored_database_has_its_former_markers() {
    let marks = vec![mark(1.0, 8, false, Some(8)), mark(11.0, 1, false, Some(2))];
    keeps(|records| {
        with(marks, 2, 8)(records);
        records.restored = Some(Restored { copied: s(10.4), ended: s(10.6), renewed: s(10.8) });
        let again = Entry::Joined {
            room: ROOM,
            after: Some(10),
            from: 1,
            last_seq: 10,
            reset: true,
            messages: (1..=10).map(seen).collect(),
            changed: vec![],
        };
        entries(records).extend([(s(11.1), Entry::Closed), (s(11.2), Entry::Opened), (s(11.3), again)]);
    });
}
