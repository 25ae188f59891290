mod markers;
mod reactions;
mod rights;
mod states;

use super::super::history::Use;
use super::super::message::{Replies, Seen, State, tally};
use super::super::terms::{CARRIES_ON, FREEZES, GENTLE, TERMS, Terms};
use super::*;

const ROOM: Uuid = Uuid::from_u128(1);
const SENDER: Uuid = Uuid::from_u128(2);

fn s(seconds: f64) -> At {
    At::from_secs_f64(seconds)
}

fn seen(seq: u64) -> Seen {
    Seen { room: ROOM, seq, id: Uuid::from_u128(100 + u128::from(seq)), digest: seq, state: Some(state(seq)) }
}

fn state(seq: u64) -> State {
    let (reactions, replies) = (tally([]), Replies::default());
    State { revision: seq, deleted: false, pinned: false, text: 0, acts: 0, reactions, replies }
}

fn attempt(begun: f64, ended: f64, outcome: Outcome) -> Attempt {
    Attempt { begun: s(begun), ended: s(ended), socket: None, outcome }
}

fn sent(seq: u64, attempts: Vec<Attempt>) -> Sent {
    Sent { sender: SENDER, room: ROOM, key: format!("k{seq}"), guest: false, attempts }
}

fn stored(seq: u64) -> Stored {
    let (key, toggles) = (format!("k{seq}"), Vec::new());
    Stored { seen: seen(seq), sender: SENDER, key, change: None, act: None, toggles, thread: None }
}

fn joined(at: f64, after: Option<u64>, last_seq: u64, messages: Vec<Seen>) -> (At, Entry) {
    (s(at), Entry::Joined { room: ROOM, after, from: 1, last_seq, reset: false, messages, changed: vec![] })
}

fn live(at: f64, seq: u64) -> (At, Entry) {
    (s(at), Entry::Live(seen(seq)))
}

fn fault(from: f64, healed: f64, terms: Terms) -> Fault {
    Fault { name: "a fault", from: s(from), healed: s(healed), terms, bit: "it bit".into() }
}

/// Ten messages, one per second, acknowledged at once and received by a client that lost its connection once.
fn good() -> Records {
    let sends = (1..=10).map(|n| sent(n, vec![attempt(n as f64, n as f64 + 0.1, Outcome::Acked(seen(n)))])).collect();
    let mut entries = vec![(s(0.0), Entry::Opened), joined(0.1, None, 0, vec![])];
    entries.extend((1..=4).map(|n| live(n as f64 + 0.2, n)));
    entries.extend([
        (s(4.5), Entry::Closed),
        (s(7.5), Entry::Opened),
        joined(7.6, Some(4), 7, vec![seen(5), seen(6), seen(7)]),
    ]);
    entries.extend((8..=10).map(|n| live(n as f64 + 0.2, n)));
    Records {
        sends,
        receivers: vec![Receiver { name: "receiver 1".into(), entries, ..Receiver::default() }],
        history: [(ROOM, (1..=10).map(stored).collect())].into(),
        ended: s(12.0),
        ..Records::default()
    }
}

fn entries(records: &mut Records) -> &mut Vec<(At, Entry)> {
    &mut records.receivers[0].entries
}

/// Changes the records of a good run, and expects the checker to report only this promise.
#[track_caller]
fn breaks(promise: &str, spoil: impl FnOnce(&mut Records)) -> Counts {
    let mut records = good();
    spoil(&mut records);
    let verdict = check(&records);
    assert!(!verdict.violations.is_empty(), "no violation was detected");
    assert!(verdict.violations.iter().any(|violation| violation.promise == promise), "{:?}", verdict.violations);
    verdict.counts
}

#[track_caller]
fn keeps(change: impl FnOnce(&mut Records)) -> Verdict {
    let mut records = good();
    change(&mut records);
    let verdict = check(&records);
    assert_eq!(verdict.violations, []);
    verdict
}

#[test]
fn good_run_has_no_violations() {
    let counts = keeps(|_| ()).counts;
    let expected = Counts { sent: 10, acknowledged: 10, delivered: 10, repaired: 3, resumed: 1, ..Counts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn missing_acknowledged_message_is_lost() {
    let gone = |records: &mut Records| {
        let history = records.history.get_mut(&ROOM).unwrap();
        history.remove(9);
        entries(records).pop();
    };
    assert_eq!(breaks("I1", gone).lost, 1);
}

#[test]
fn duplicate_in_history_is_detected() {
    let twice = |records: &mut Records| {
        let history = records.history.get_mut(&ROOM).unwrap();
        history.push(Stored { key: "k3".into(), ..stored(11) });
        entries(records).push(live(11.0, 11));
    };
    assert_eq!(breaks("I2", twice).repeated, 1);
    breaks("I2", |records| {
        let other = Seen { digest: 77, ..seen(3) };
        records.sends[2].attempts.push(attempt(4.0, 4.1, Outcome::Acked(other)));
    });
}

#[test]
fn numbers_are_dense_and_follow_commits() {
    breaks("I3", |records| drop(records.history.get_mut(&ROOM).unwrap().remove(3)));
    let overtaken = |records: &mut Records| {
        // Began after the next message had been acknowledged, but has a lower number.
        records.sends[4].attempts[0] = attempt(6.5, 6.6, Outcome::Acked(seen(5)));
    };
    assert_eq!(breaks("I3", overtaken).reordered, 1);
    let socket = |records: &mut Records| {
        records.sends[1].attempts[0].socket = Some((1, 2));
        records.sends[1].attempts[0].begun = s(0.9);
        records.sends[2].attempts[0].socket = Some((1, 1));
        records.sends[2].attempts[0].begun = s(0.9);
    };
    assert_eq!(breaks("I3", socket).reordered, 1);
}

#[test]
fn duplicate_late_and_missing_deliveries_are_detected() {
    assert_eq!(breaks("I3", |records| entries(records).insert(3, live(1.3, 1))).repeated, 1);
    assert_eq!(breaks("I3", |records| entries(records).insert(4, live(2.3, 1))).reordered, 1);
    assert_eq!(breaks("I4", |records| drop(entries(records).remove(3))).lost, 1);
    // The last message of a quiet room.
    assert_eq!(breaks("I4", |records| drop(entries(records).pop())).lost, 1);
    breaks("I4", |records| {
        entries(records).pop();
        entries(records).push(live(13.5, 10));
    });
    breaks("I4", |records| entries(records)[8] = joined(7.6, Some(4), 7, vec![seen(5), seen(7)]));
    breaks("I4", |records| entries(records)[8] = joined(7.6, Some(4), 7, vec![seen(4), seen(5), seen(6), seen(7)]));
    breaks("I4", |records| entries(records).insert(7, live(4.8, 5)));
}

#[test]
fn recovered_client_receives_missed_messages_live() {
    let back = |records: &mut Records| {
        entries(records).splice(7..9, [(s(7.5), Entry::Recovered), live(7.6, 5), live(7.6, 6), live(7.6, 7)]);
    };
    assert_eq!(keeps(back).counts.recovered, 1);
    let hole = |records: &mut Records| {
        back(records);
        entries(records).remove(8);
    };
    assert_eq!(breaks("I4", hole).lost, 1);
}

#[test]
fn invented_messages_are_detected() {
    assert_eq!(breaks("I5", |records| entries(records)[2].1 = Entry::Live(Seen { digest: 9, ..seen(1) })).invented, 1);
    breaks("I5", |records| entries(records).push(live(11.0, 11)));
}

#[test]
fn delivery_after_logout_is_detected() {
    let logged_out = |at: f64| move |records: &mut Records| records.receivers[0].logged_out = Some(s(at));
    keeps(logged_out(5.5));
    assert_eq!(breaks("I6", logged_out(5.0)).outlived, 1);
    // The last event arrives at 10.2. A fault of Redis does not extend the bound; an outage of auth does.
    let during = |from: f64, healed: f64, auth: Option<u64>| {
        move |records: &mut Records| {
            logged_out(3.0)(records);
            let auth = auth.map(Duration::from_secs);
            records.faults.push(fault(from, healed, Terms { auth, ..TERMS }));
        }
    };
    assert_eq!(breaks("I6", during(2.0, 11.0, None)).outlived, 3, "7 s after the logout");
    keeps(during(2.0, 5.3, Some(0)));
    breaks("I6", during(2.0, 5.1, Some(0)));
    keeps(during(2.0, 4.0, Some(2)));
    breaks("I6", during(1.0, 2.9, Some(0)));
    breaks("I6", during(8.5, 9.5, Some(0)));
}

#[test]
fn slow_recovery_is_detected() {
    let trouble = |at: f64, until: f64| {
        move |records: &mut Records| {
            records.faults.push(fault(1.0, 2.0, Terms { recovers: Duration::from_secs(5), ..TERMS }));
            entries(records).truncate(7);
            entries(records).extend((5..=10).map(|n| live(n as f64 + 0.2, n)));
            entries(records).remove(6);
            let failed = attempt(at, until, Outcome::Refused(503, "unavailable".into()));
            records.sends[9].attempts.insert(0, failed);
        }
    };
    assert_eq!(keeps(trouble(3.0, 3.1)).recoveries[0].1, s(1.1));
    breaks("I7", trouble(7.5, 7.6));
    // Trouble caused by the next fault does not count for this one.
    let next = |from: f64| {
        move |records: &mut Records| {
            trouble(6.9, 9.5)(records);
            records.faults.push(fault(from, 9.6, TERMS));
        }
    };
    keeps(next(7.0));
    breaks("I7", next(8.0));
    breaks("I7", |records| records.sends[3].attempts.clear());
    breaks("I7", |records| entries(records).push((s(11.0), Entry::Closed)));
}

#[test]
fn interruptions_during_a_fault_are_detected() {
    let lively = Terms { live: Some(Duration::from_millis(150)), ..TERMS };
    let during = |from, healed, terms| move |records: &mut Records| records.faults.push(fault(from, healed, terms));
    keeps(during(0.5, 3.5, lively));
    breaks("case", during(0.5, 3.5, Terms { live: Some(Duration::from_millis(50)), ..lively }));
    // No client receives a message between 4.2 and 8.2.
    breaks("case", during(4.9, 6.0, lively));
    keeps(during(0.5, 4.0, CARRIES_ON));
    breaks("case", during(4.1, 8.0, CARRIES_ON));
    let failing = |records: &mut Records| {
        during(0.5, 3.0, CARRIES_ON)(records);
        records.sends[1].attempts.insert(0, attempt(1.5, 1.6, Outcome::Refused(503, "unavailable".into())));
    };
    breaks("case", failing);
    let because_of_another = |records: &mut Records| {
        failing(records);
        during(1.4, 1.7, Terms { recovers: Duration::ZERO, ..TERMS })(records);
    };
    keeps(because_of_another);
    let refusing = Terms { refuses: true, ..TERMS };
    breaks("case", during(0.5, 3.0, refusing));
    keeps(|records| {
        failing(records);
        records.faults[0].terms = refusing;
    });
}

#[test]
fn resource_leaks_are_detected() {
    let used =
        |rss, descriptors, tasks| Use { name: "gateway-1".into(), at: s(1.0), rss, descriptors, tasks: Some(tasks) };
    let first = || used(1 << 20, 50, 90);
    keeps(|records| records.uses = vec![first(), used(900 << 20, 5000, 5000), used(1 << 20, 60, 100)]);
    breaks("I8", |records| records.uses = vec![first(), used(2 << 30, 50, 90), first()]);
    breaks("I8", |records| records.uses = vec![first(), used(1 << 20, 5000, 90)]);
    breaks("I8", |records| records.uses = vec![first(), used(300 << 20, 50, 90)]);
    breaks("I8", |records| records.uses = vec![first(), used(1 << 20, 50, 5000)]);
    // A frozen process does not report its tasks.
    keeps(|records| records.uses = vec![first(), Use { tasks: None, ..first() }]);
}

#[test]
fn undocumented_and_late_rejections_are_detected() {
    let call = |begun: f64, ended: f64, outcome: Outcome| {
        move |records: &mut Records| {
            records.faults.push(fault(0.0, 10.0, TERMS));
            records.calls.push(("a request".into(), attempt(begun, ended, outcome)));
        }
    };
    keeps(call(1.0, 3.0, Outcome::Refused(503, "unavailable".into())));
    breaks("I9", call(1.0, 1.1, Outcome::Refused(500, "internal".into())));
    breaks("I9", call(1.0, 8.0, Outcome::Refused(503, "unavailable".into())));
    breaks("I9", call(1.0, 7.0, Outcome::Silent));
    let frozen = |records: &mut Records| {
        call(1.0, 7.0, Outcome::Silent)(records);
        records.faults.push(fault(0.0, 10.0, Terms { mute: true, ..TERMS }));
    };
    keeps(frozen);
    breaks("I9", |records| {
        records.faults.push(fault(0.0, 10.0, Terms { spares_rest: true, ..TERMS }));
        records.calls.push(("a request".into(), attempt(1.0, 1.1, Outcome::Broken)));
    });
}

#[test]
fn restored_database_excuses_only_its_losses() {
    let restored = |reset: bool, ended: f64| {
        move |records: &mut Records| {
            // Messages 9 and 10 are lost; every receiver discards its messages and reads again.
            records.restored = Some(Restored { copied: s(8.5), ended: s(ended), renewed: s(11.0) });
            records.history.get_mut(&ROOM).unwrap().truncate(8);
            let all = (1..=8).map(seen).collect();
            let again = Entry::Joined {
                room: ROOM,
                after: Some(10),
                last_seq: 8,
                reset,
                messages: if reset { all } else { vec![] },
                from: 1,
                changed: vec![],
            };
            entries(records).extend([(s(11.1), Entry::Closed), (s(11.2), Entry::Opened), (s(11.3), again)]);
        }
    };
    // The tenth message was sent at 10.0.
    keeps(restored(true, 10.05));
    breaks("I4", restored(false, 10.05));
    breaks("I1", restored(true, 9.95));
    breaks("I4", |records| {
        let all = (1..=10).map(seen).collect();
        let (after, changed) = (Some(10), vec![]);
        let again = Entry::Joined { room: ROOM, after, from: 1, last_seq: 10, reset: true, messages: all, changed };
        entries(records).push((s(11.3), again));
    });
}

#[test]
fn empty_run_proves_nothing() {
    breaks("proof", |records| records.receivers.clear());
    breaks("proof", |records| {
        records.receivers[0].recovers = true;
        entries(records).splice(0..0, [(s(0.0), Entry::Opened), (s(0.0), Entry::Opened)]);
    });
    breaks("case", |records| records.broken.push("not closed".into()));
}
