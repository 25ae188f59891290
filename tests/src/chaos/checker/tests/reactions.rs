//! Reactions and replies: the counts that clients see are those of the log, and the log has what users did.

use super::super::super::history::{Act, What};
use super::super::super::message::{Op, Partial, Replies, Toggle, Values};
use super::*;

const HEART: &str = "❤";

fn toggle(on: bool) -> Toggle {
    Toggle { user: SENDER, name: HEART.into(), on }
}

fn reacts(begun: f64, on: bool) -> Act {
    let what = What::Reaction { room: ROOM, target: 1, toggle: toggle(on) };
    Act { what, attempts: vec![attempt(begun, begun + 0.1, Outcome::Done)], known: Some(s(begun + 0.1)) }
}

fn change(seq: u64, op: Op) -> Stored {
    let target = if op == Op::Delete { 4 } else { 1 };
    let seen = Seen { id: SENDER, state: None, ..seen(seq) };
    Stored { seen, key: String::new(), act: Some((target, op)), ..stored(seq) }
}

fn reaction(seq: u64, on: bool) -> Stored {
    Stored { toggles: vec![toggle(on)], ..change(seq, Op::React) }
}

/// The first message after the change with the number `revision`.
fn root(revision: u64) -> Seen {
    let count = u64::from((4..6).contains(&revision));
    let replies = Replies { count, last: if revision >= 4 { 4 } else { 0 } };
    let reactions = if revision >= 3 { tally([(HEART, 1)]) } else { tally([]) };
    Seen { state: Some(State { revision, reactions, replies, ..state(1) }), ..seen(1) }
}

fn partial(at: f64, revision: u64, values: impl FnOnce(State) -> Values) -> (At, Entry) {
    let Seen { room, seq, id, state, .. } = root(revision);
    (s(at), Entry::Partial(Partial { room, seq, id, revision, values: values(state.unwrap()) }))
}

fn reply(deleted: bool) -> Seen {
    let text = super::super::super::message::text("");
    let gone = State { revision: 6, deleted: true, text, ..state(4) };
    Seen { state: Some(if deleted { gone } else { state(4) }), ..seen(4) }
}

/// Two messages. A user reacts to the first (3), replies to it (4), and deletes the reply (6) after another message. The
/// receiver misses nothing.
fn reacted() -> Records {
    let sent = |n| sent(n, vec![attempt(n as f64, n as f64 + 0.1, Outcome::Acked(seen(n)))]);
    let deletes = What::Message { room: ROOM, target: 4, by: SENDER, op: Op::Delete, text: None };
    let deletes = Act { what: deletes, ..reacts(6.0, true) };
    let entries = vec![
        (s(0.0), Entry::Opened),
        joined(0.1, None, 0, vec![]),
        live(1.2, 1),
        live(2.2, 2),
        (s(3.2), Entry::Live(reaction(3, true).seen)),
        partial(3.2, 3, |state| Values::Reactions(state.reactions)),
        live(4.2, 4),
        partial(4.2, 4, |state| Values::Replies(state.replies)),
        live(5.2, 5),
        (s(6.2), Entry::Live(change(6, Op::Delete).seen)),
        (s(6.2), Entry::Changed(reply(true))),
        partial(6.2, 6, |state| Values::Replies(state.replies)),
    ];
    let history = vec![
        Stored { seen: root(6), ..stored(1) },
        stored(2),
        reaction(3, true),
        Stored { seen: reply(true), thread: Some(1), ..stored(4) },
        stored(5),
        change(6, Op::Delete),
    ];
    Records {
        sends: [1, 2, 4, 5].map(sent).into(),
        acts: vec![reacts(3.0, true), deletes],
        receivers: vec![Receiver { name: "receiver 1".into(), entries, ..Receiver::default() }],
        history: [(ROOM, history)].into(),
        ended: s(9.0),
        ..Records::default()
    }
}

/// Expects the checker to report exactly these promises.
#[track_caller]
fn breaks(promises: &[&str], spoil: impl FnOnce(&mut Records)) -> Counts {
    let mut records = reacted();
    spoil(&mut records);
    let verdict = check(&records);
    let mut broken = verdict.violations.iter().map(|violation| violation.promise).collect::<Vec<_>>();
    broken.dedup();
    assert_eq!(broken, promises, "{:?}", verdict.violations);
    verdict.counts
}

fn log(records: &mut Records) -> &mut Vec<Stored> {
    records.history.get_mut(&ROOM).unwrap()
}

fn spoil_root(change: impl FnOnce(&mut State)) -> impl FnOnce(&mut Records) {
    move |records| change(log(records)[0].seen.state.as_mut().unwrap())
}

#[test]
fn right_counts_are_no_violation() {
    let counts = breaks(&[], |_| ());
    assert_eq!((counts.reactions, counts.replies, counts.changes), (1, 1, 1));
    breaks(&["I4", "proof"], |records| entries(records).retain(|(_, entry)| !matches!(entry, Entry::Partial(_))));
}

#[test]
fn lost_reaction_is_detected() {
    // The log has a change without the reaction.
    let lost = |records: &mut Records| {
        log(records)[2].toggles.clear();
        spoil_root(|state| state.reactions = tally([]))(records);
        entries(records)[5] = partial(3.2, 3, |_| Values::Reactions(tally([])));
    };
    assert_eq!(breaks(&["I1"], lost).misreacted, 1);
    // Without an acknowledgement, it may stand or not.
    let unknown = |records: &mut Records| {
        lost(records);
        records.acts[0].known = None;
    };
    breaks(&[], unknown);
    breaks(&[], |records| records.acts[0].known = None);
}

#[test]
fn last_act_stands() {
    // The reaction is taken back, but the log does not have that.
    assert_eq!(breaks(&["I1"], |records| records.acts.push(reacts(5.0, false))).misreacted, 1);
    // Two acts at the same time may commit in any order.
    breaks(&[], |records| records.acts.push(reacts(3.05, false)));
    let unanswered = |records: &mut Records| {
        records.acts.push(reacts(5.0, false));
        records.acts[0].attempts.insert(0, attempt(2.0, 2.9, Outcome::Silent));
        records.faults.push(fault(1.5, 2.8, FREEZES));
    };
    breaks(&[], unanswered);
}

#[test]
fn doubled_and_invented_reactions_are_detected() {
    let doubled = |records: &mut Records| log(records)[2].toggles.push(toggle(true));
    assert_eq!(breaks(&["I5"], doubled).misreacted, 1);
    assert_eq!(breaks(&["I5"], |records| drop(records.acts.remove(0))).misreacted, 1);
}

#[test]
fn wrong_counts_are_detected() {
    let two = tally([(HEART, 2)]);
    // In the log; the receiver has the right count then.
    let counts = breaks(&["I5", "I4"], spoil_root(|state| state.reactions = two));
    assert_eq!((counts.misreacted, counts.misreplied, counts.misfolded), (2, 0, 0));
    let live = |records: &mut Records| entries(records)[5] = partial(3.2, 3, |_| Values::Reactions(two));
    assert_eq!(breaks(&["I5", "I4"], live).misreacted, 2);
    let replies = Replies { count: 1, last: 4 };
    let counts = breaks(&["I5", "I4"], spoil_root(|state| state.replies = replies));
    assert_eq!((counts.misreacted, counts.misreplied, counts.misfolded), (0, 2, 0));
    let gone = Replies { count: 0, last: 0 };
    assert_eq!(breaks(&["I5", "I4"], spoil_root(|state| state.replies = gone)).misreplied, 2);
}

#[test]
fn count_without_its_change_is_detected() {
    let early = |records: &mut Records| entries(records)[7] = partial(4.2, 5, |state| Values::Replies(state.replies));
    assert_eq!(breaks(&["I5"], early).misfolded, 1);
    let other = |records: &mut Records| {
        let (_, Entry::Partial(partial)) = &mut entries(records)[5] else { unreachable!() };
        partial.id = Uuid::nil();
    };
    assert_eq!(breaks(&["I5"], other).invented, 1);
    // A client that misses the last count holds an old one.
    assert_eq!(breaks(&["I4"], |records| drop(entries(records).pop())).misreplied, 1);
}
