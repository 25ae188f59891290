//! Changes of messages, and the states that clients see.

use super::super::super::history::{Act, What};
use super::super::super::message::{Op, text};
use super::*;

const NEW: &str = "a new text";

/// A message in the state that the changes up to `revision` have made of it.
fn shown(seq: u64, revision: u64) -> Seen {
    let state = match (seq, revision) {
        (1, 4) => State { revision, text: text(NEW), acts: 4, ..state(seq) },
        (1, 6) => State { revision, text: text(""), deleted: true, acts: 6, ..state(seq) },
        (2, 5) => State { revision, pinned: true, ..state(seq) },
        _ => state(seq),
    };
    Seen { state: Some(state), ..seen(seq) }
}

fn change(seq: u64) -> Seen {
    Seen { id: SENDER, state: None, ..seen(seq) }
}

fn act(begun: f64, target: u64, op: Op) -> Act {
    let content = (op == Op::Edit).then(|| NEW.to_owned());
    let attempts = vec![attempt(begun, begun + 0.1, Outcome::Acked(shown(target, begun as u64)))];
    let what = What::Message { room: ROOM, target, by: SENDER, op, text: content };
    Act { what, attempts, known: Some(s(begun + 0.1)) }
}

fn entry(seq: u64, target: u64, op: Op) -> Stored {
    Stored { seen: change(seq), key: String::new(), act: Some((target, op)), ..stored(seq) }
}

/// Three messages; then the first is edited, the second is pinned, and the first is deleted, one act per second. The
/// receiver misses the last two changes.
fn changed() -> Records {
    let sends = (1..=3).map(|n| sent(n, vec![attempt(n as f64, n as f64 + 0.1, Outcome::Acked(seen(n)))])).collect();
    let mut entries = vec![(s(0.0), Entry::Opened), joined(0.1, None, 0, vec![])];
    entries.extend((1..=3).map(|n| live(n as f64 + 0.2, n)));
    entries.extend([
        (s(4.2), Entry::Live(change(4))),
        (s(4.2), Entry::Changed(shown(1, 4))),
        (s(4.5), Entry::Closed),
        (s(7.0), Entry::Opened),
        caught_up(vec![shown(2, 5), shown(1, 6)]),
    ]);
    let history = vec![
        Stored { seen: shown(1, 6), ..stored(1) },
        Stored { seen: shown(2, 5), ..stored(2) },
        stored(3),
        entry(4, 1, Op::Edit),
        entry(5, 2, Op::Pin),
        entry(6, 1, Op::Delete),
    ];
    Records {
        sends,
        acts: vec![act(4.0, 1, Op::Edit), act(5.0, 2, Op::Pin), act(6.0, 1, Op::Delete)],
        receivers: vec![Receiver { name: "receiver 1".into(), entries, ..Receiver::default() }],
        present: [(ROOM, history[..3].iter().map(|stored| stored.seen).collect())].into(),
        history: [(ROOM, history)].into(),
        ended: s(9.0),
        ..Records::default()
    }
}

fn caught_up(changed: Vec<Seen>) -> (At, Entry) {
    let (after, from, reset) = (Some(4), 1, false);
    (s(7.1), Entry::Joined { room: ROOM, after, from, last_seq: 6, reset, messages: vec![], changed })
}

#[track_caller]
fn breaks(promise: &str, spoil: impl FnOnce(&mut Records)) -> Counts {
    let mut records = changed();
    spoil(&mut records);
    let verdict = check(&records);
    assert!(verdict.violations.iter().any(|violation| violation.promise == promise), "{:?}", verdict.violations);
    verdict.counts
}

fn log(records: &mut Records) -> &mut Vec<Stored> {
    records.history.get_mut(&ROOM).unwrap()
}

#[test]
fn changes_in_order_are_no_violation() {
    let verdict = check(&changed());
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.counts.changes, verdict.counts.misfolded), (3, 0));
}

#[test]
fn lost_and_repeated_changes_are_detected() {
    assert_eq!(breaks("I1", |records| log(records)[5] = entry(6, 2, Op::Unpin)).lost, 1);
    assert_eq!(breaks("I1", |records| log(records).push(entry(7, 1, Op::Edit))).repeated, 1);
    let swapped = |records: &mut Records| {
        log(records)[3] = entry(4, 1, Op::Delete);
        log(records)[5] = entry(6, 1, Op::Edit);
    };
    assert_eq!(breaks("I3", swapped).reordered, 1);
}

#[test]
fn wrong_folds_are_detected() {
    let folded = |seen: Seen| move |records: &mut Records| log(records)[0].seen = seen;
    assert!(breaks("I5", folded(shown(1, 4))).misfolded > 0);
    breaks("I5", folded(Seen { state: Some(State { pinned: true, ..shown(1, 6).state.unwrap() }), ..seen(1) }));
    breaks("I5", folded(Seen { state: Some(State { text: 5, ..shown(1, 6).state.unwrap() }), ..seen(1) }));
    breaks("I5", |records| log(records)[1].seen = shown(2, 2));
    let old_text = |records: &mut Records| {
        // Without the deletion, the text is that of the edit.
        log(records).pop();
        records.acts.pop();
        log(records)[0].seen = Seen { state: Some(State { text: 9, ..shown(1, 4).state.unwrap() }), ..seen(1) };
    };
    assert!(breaks("I5", old_text).misfolded > 0);
    breaks("I5", |records| records.present.get_mut(&ROOM).unwrap()[0] = shown(1, 4));
    breaks("I5", |records| records.present.get_mut(&ROOM).unwrap().truncate(2));
}

#[test]
fn contradicting_states_are_detected() {
    let other = |seen: Seen| Seen { state: Some(State { text: 77, ..seen.state.unwrap() }), ..seen };
    assert_eq!(breaks("I5", |records| entries(records)[6].1 = Entry::Changed(other(shown(1, 4)))).misfolded, 1);
    // All clients see the same wrong text, and a later change hides it.
    let before = Seen { state: Some(State { text: 0, ..shown(1, 4).state.unwrap() }), ..seen(1) };
    let agreed = |records: &mut Records| {
        entries(records)[6].1 = Entry::Changed(before);
        records.acts[0].attempts[0].outcome = Outcome::Acked(before);
    };
    assert_eq!(breaks("I5", agreed).misfolded, 2);
    breaks("I5", |records| entries(records)[9] = caught_up(vec![shown(2, 5), other(shown(1, 6))]));
    let invented = Seen { state: Some(State { revision: 5, ..state(1) }), ..seen(1) };
    breaks("I5", move |records| entries(records)[6].1 = Entry::Changed(invented));
}

#[test]
fn client_without_the_last_state_is_detected() {
    assert_eq!(breaks("I4", |records| entries(records)[9] = caught_up(vec![shown(1, 6)])).misfolded, 1);
    breaks("I4", |records| entries(records)[9] = caught_up(vec![shown(2, 5), shown(1, 4)]));
    // A client that holds a newer state ignores an older one.
    let mut records = changed();
    entries(&mut records).insert(6, (s(4.2), Entry::Changed(shown(1, 6))));
    assert_eq!(check(&records).violations, []);
    breaks("proof", |records| entries(records).retain(|(_, entry)| !matches!(entry, Entry::Changed(_))));
}
