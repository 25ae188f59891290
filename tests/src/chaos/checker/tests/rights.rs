//! Members, roles, visibility, and acts on sessions.

use super::super::super::access::{Change, Opening, Role};
use super::super::super::history::{Act, Read, What};
use super::*;

const OWNER: Uuid = Uuid::from_u128(10);
const GUEST: Uuid = Uuid::from_u128(11);

const LEFT: Change = Change::Left { user: GUEST };

fn joins() -> Change {
    Change::Joined { user: GUEST, role: Role::Member }
}

fn hides(private: bool) -> Change {
    Change::Visibility { private }
}

fn refused() -> Outcome {
    Outcome::Refused(404, "not_found".into())
}

/// An act of the owner, acknowledged after 0.1 s.
fn act(begun: f64, change: Change) -> Act {
    let attempts = vec![attempt(begun, begun + 0.1, Outcome::Done)];
    Act { what: What::Room { room: ROOM, change }, attempts, known: Some(s(begun + 0.1)) }
}

fn post(sender: Uuid, seq: u64, begun: f64) -> Sent {
    let attempts = vec![attempt(begun, begun + 0.1, Outcome::Acked(seen(seq)))];
    Sent { sender, guest: sender == GUEST, ..sent(seq, attempts) }
}

fn rejected_post(begun: f64) -> Sent {
    Sent { sender: GUEST, key: "rejected".into(), guest: true, ..sent(0, vec![attempt(begun, begun + 0.1, refused())]) }
}

fn read(begun: f64, ended: f64, outcome: Outcome) -> Read {
    Read { user: GUEST, room: ROOM, attempt: attempt(begun, ended, outcome) }
}

/// The history of a room: each event is a change by the owner, or a message of a user, one per second.
fn told(private: bool, events: &[Result<Change, Uuid>], entries: Vec<(At, Entry)>) -> Records {
    let mut records = Records { ended: s(20.0), ..Records::default() };
    records.openings.insert(ROOM, Opening { private, owner: OWNER });
    for (seq, event) in (1..).zip(events) {
        let (sender, change) = match event {
            Ok(change) => {
                records.acts.push(act(seq as f64, change.clone()));
                (OWNER, Some(change.clone()))
            }
            Err(user) => {
                records.sends.push(post(*user, seq, seq as f64));
                (*user, None)
            }
        };
        let key = if change.is_some() { String::new() } else { format!("k{seq}") };
        records.history.entry(ROOM).or_default().push(Stored { seen: seen(seq), sender, key, change, ..stored(seq) });
    }
    let name = "guest".into();
    records.receivers.push(Receiver { name, user: GUEST, restless: true, entries, ..Receiver::default() });
    records
}

/// A guest is removed at 3 and returns at 5.
fn removal() -> Records {
    let entries = vec![
        (s(1.2), Entry::Opened),
        joined(1.3, None, 1, vec![]),
        live(2.2, 2),
        live(3.2, 3),
        joined(5.3, Some(3), 5, vec![seen(4), seen(5)]),
        live(6.2, 6),
    ];
    let mut records = told(true, &[Ok(joins()), Err(GUEST), Ok(LEFT), Err(OWNER), Ok(joins()), Err(GUEST)], entries);
    records.members.insert(ROOM, [(OWNER, Role::Owner), (GUEST, Role::Member)].into());
    records.sends.push(rejected_post(4.2));
    records.reads = vec![read(2.5, 2.6, Outcome::Done), read(4.5, 4.6, refused())];
    records
}

/// A room is private from 2 to 4. The guest is not a member.
fn hiding() -> Records {
    let entries = vec![
        (s(0.1), Entry::Opened),
        joined(0.2, None, 0, vec![]),
        live(1.2, 1),
        (s(2.2), Entry::Closed),
        (s(2.4), Entry::Opened),
        joined(4.3, Some(1), 4, vec![seen(2), seen(3), seen(4)]),
        live(5.2, 5),
        live(6.2, 6),
    ];
    let removal = [Ok(joins()), Ok(LEFT)];
    let mut events = vec![Err(GUEST), Ok(hides(true)), Err(OWNER), Ok(hides(false))];
    events.extend(removal);
    let mut records = told(false, &events, entries);
    records.members.insert(ROOM, [(OWNER, Role::Owner)].into());
    records
}

#[track_caller]
fn keeps(mut records: Records, change: impl FnOnce(&mut Records)) -> Verdict {
    change(&mut records);
    let verdict = check(&records);
    assert_eq!(verdict.violations, []);
    verdict
}

/// Expects the checker to report only this promise.
#[track_caller]
fn breaks(promise: &str, mut records: Records, spoil: impl FnOnce(&mut Records)) -> Counts {
    spoil(&mut records);
    let verdict = check(&records);
    assert!(!verdict.violations.is_empty(), "no violation was detected");
    assert!(verdict.violations.iter().all(|violation| violation.promise == promise), "{:?}", verdict.violations);
    verdict.counts
}

#[test]
fn acts_and_rejections_are_counted() {
    let counts = keeps(removal(), |_| ()).counts;
    assert_eq!((counts.removals, counts.rejected, counts.role_changes), (1, 2, 0));
    assert_eq!((counts.leaked, counts.trespassed, counts.outlived), (0, 0, 0));
    let counts = keeps(hiding(), |_| ()).counts;
    assert_eq!((counts.visibility_changes, counts.removals), (2, 1));
}

#[test]
fn delivery_after_a_removal_is_detected() {
    let after_removal = |records: &mut Records| {
        entries(records).insert(4, live(4.2, 4));
        entries(records)[5] = joined(5.3, Some(4), 5, vec![seen(5)]);
    };
    assert_eq!(breaks("I6", removal(), after_removal).leaked, 1);
    let without_the_removal = |records: &mut Records| {
        after_removal(records);
        entries(records).remove(3);
    };
    assert_eq!(breaks("I6", removal(), without_the_removal).leaked, 1);
    let past_the_return = |records: &mut Records| {
        after_removal(records);
        entries(records).splice(5.., [live(5.2, 5), live(6.2, 6)]);
    };
    assert_eq!(breaks_somehow(removal(), past_the_return).leaked, 3);
    let by_a_join = |records: &mut Records| {
        entries(records).insert(4, joined(4.2, Some(3), 4, vec![seen(4)]));
        entries(records)[5] = joined(5.3, Some(4), 5, vec![seen(5)]);
    };
    assert_eq!(breaks("I6", removal(), by_a_join).leaked, 1);
    let before_the_membership = |records: &mut Records| {
        entries(records)[1] = joined(0.9, None, 0, vec![]);
        entries(records).insert(2, live(1.2, 1));
    };
    assert_eq!(breaks("I6", removal(), before_the_membership).leaked, 1);
}

/// Returns the counts of a spoiled run that breaks several promises.
#[track_caller]
fn breaks_somehow(mut records: Records, spoil: impl FnOnce(&mut Records)) -> Counts {
    spoil(&mut records);
    let verdict = check(&records);
    assert!(!verdict.violations.is_empty(), "no violation was detected");
    verdict.counts
}

#[test]
fn a_socket_in_the_room_receives_the_removal() {
    let silent = |records: &mut Records| entries(records).truncate(3);
    assert_eq!(breaks("I4", removal(), silent).lost, 4);
    // A socket that was closed before the removal does not receive it.
    keeps(removal(), |records| {
        entries(records).splice(
            3..5,
            [
                (s(2.5), Entry::Closed),
                (s(3.5), Entry::Opened),
                joined(5.3, Some(2), 5, vec![seen(3), seen(4), seen(5)]),
            ],
        );
    });
}

#[test]
fn posts_and_reads_without_the_right_are_detected() {
    let posted = |records: &mut Records| {
        records.history.get_mut(&ROOM).unwrap()[3].sender = GUEST;
        records.sends.iter_mut().filter(|send| send.key == "k4").for_each(|send| send.sender = GUEST);
    };
    assert_eq!(breaks("I6", removal(), posted).trespassed, 1);
    let reads = |begun: f64, ended: f64, outcome: Outcome| {
        move |records: &mut Records| records.reads.push(read(begun, ended, outcome))
    };
    // The removal was acknowledged at 3.1, and the return began at 5.0.
    assert_eq!(breaks("I6", removal(), reads(4.2, 4.9, Outcome::Done)).trespassed, 1);
    keeps(removal(), reads(4.0, 4.1, Outcome::Done));
    keeps(removal(), reads(4.2, 5.05, Outcome::Done));
    keeps(removal(), reads(4.2, 4.3, Outcome::Refused(503, "unavailable".into())));
}

#[test]
fn rejections_of_members_are_detected() {
    let reads = |begun: f64| move |records: &mut Records| records.reads.push(read(begun, begun + 0.05, refused()));
    breaks("I6", removal(), reads(2.0));
    breaks("I6", removal(), reads(5.2));
    for overlapping in [1.05, 2.98, 3.05, 5.05] {
        keeps(removal(), reads(overlapping));
    }
    breaks("I6", removal(), |records| records.sends.push(rejected_post(6.5)));
    // The rejection is the outcome of a guest's message alone.
    breaks("I7", removal(), |records| {
        records.sends.push(Sent { sender: OWNER, guest: false, ..rejected_post(6.5) });
    });
}

#[test]
fn changes_are_in_history_once_and_in_order() {
    let lost = |records: &mut Records| {
        records.acts.push(act(7.0, Change::Roles([(GUEST, Role::Admin)].into())));
    };
    assert_eq!(breaks("I1", removal(), lost).lost, 1);
    let twice = |records: &mut Records| {
        let again = Stored { seen: seen(7), key: String::new(), sender: OWNER, change: Some(joins()), ..stored(7) };
        records.history.get_mut(&ROOM).unwrap().push(again);
        entries(records).push(live(7.2, 7));
    };
    assert_eq!(breaks("I1", removal(), twice).repeated, 1);
    assert_eq!(breaks_somehow(removal(), |records| records.acts.swap(1, 2)).reordered, 1);
    // The removal began after a message with a higher number was acknowledged.
    let late = |records: &mut Records| {
        records.acts[1].attempts[0] = attempt(4.15, 4.2, Outcome::Done);
        records.acts[1].known = Some(s(4.2));
        records.reads.clear();
    };
    assert_eq!(breaks("I3", removal(), late).reordered, 1);
    // The outcome of the last change may be unknown, but not at the end.
    let unknown = |records: &mut Records| {
        let attempts = vec![attempt(7.0, 9.0, Outcome::Broken)];
        records.acts.push(Act { attempts, known: None, ..act(7.0, LEFT) });
        records.faults.push(fault(6.9, 9.0, TERMS));
    };
    breaks("I7", removal(), unknown);
}

#[test]
fn members_follow_the_log() {
    let passed = Change::Roles([(OWNER, Role::Admin), (GUEST, Role::Owner)].into());
    let pass = |records: &mut Records| {
        records.acts.push(act(7.0, passed.clone()));
        let event =
            Stored { seen: seen(7), key: String::new(), sender: OWNER, change: Some(passed.clone()), ..stored(7) };
        records.history.get_mut(&ROOM).unwrap().push(event);
        entries(records).push(live(7.2, 7));
        records.members.insert(ROOM, [(OWNER, Role::Admin), (GUEST, Role::Owner)].into());
    };
    assert_eq!(keeps(removal(), pass).counts.role_changes, 1);
    let lists = |members: &'static [(Uuid, Role)]| {
        move |records: &mut Records| drop(records.members.insert(ROOM, members.iter().copied().collect()))
    };
    breaks("I1", removal(), lists(&[(OWNER, Role::Owner)]));
    breaks("I1", removal(), lists(&[(OWNER, Role::Owner), (GUEST, Role::Admin)]));
    breaks("I1", removal(), lists(&[(OWNER, Role::Owner), (GUEST, Role::Owner)]));
    breaks("I1", removal(), lists(&[(OWNER, Role::Admin), (GUEST, Role::Member)]));
}

#[test]
fn delivery_in_a_hidden_room_is_detected() {
    // No socket receives the event that hides the room.
    let change = |records: &mut Records| entries(records).insert(3, live(2.1, 2));
    assert_eq!(breaks("I6", hiding(), change).leaked, 1);
    let message = |records: &mut Records| {
        change(records);
        entries(records).insert(4, live(2.15, 3));
    };
    assert_eq!(breaks("I6", hiding(), message).leaked, 2);
    let join = |records: &mut Records| {
        entries(records)[5] = joined(3.3, Some(1), 3, vec![seen(2), seen(3)]);
        entries(records).insert(6, live(4.2, 4));
    };
    assert_eq!(breaks("I6", hiding(), join).leaked, 1);
    // A member may join the hidden room.
    keeps(hiding(), |records| {
        join(records);
        records.receivers[0].user = OWNER;
    });
    let read = |records: &mut Records| records.reads.push(read(3.2, 3.9, Outcome::Done));
    assert_eq!(breaks("I6", hiding(), read).trespassed, 1);
}

#[test]
fn undocumented_and_late_outcomes_of_acts_are_detected() {
    let tries = |what: What, begun: f64, ended: f64, outcome: Outcome| {
        move |records: &mut Records| {
            let attempts = vec![attempt(begun, ended, outcome), attempt(ended, ended + 0.1, Outcome::Done)];
            records.acts.push(Act { what, attempts, known: Some(s(ended + 0.1)) });
        }
    };
    let unavailable = || Outcome::Refused(503, "unavailable".into());
    keeps(removal(), tries(What::LogOut, 3.0, 4.0, unavailable()));
    keeps(removal(), tries(What::ChangePassword, 3.0, 12.0, unavailable()));
    breaks("I9", removal(), tries(What::LogOut, 3.0, 12.0, unavailable()));
    breaks("I9", removal(), tries(What::LogIn, 3.0, 14.0, unavailable()));
    breaks("I9", removal(), tries(What::LogIn, 3.0, 4.0, Outcome::Refused(500, "internal".into())));
    let rejected = |records: &mut Records| records.acts[1].attempts.insert(0, attempt(2.9, 3.0, unavailable()));
    breaks("I7", removal(), rejected);
    keeps(removal(), |records| {
        rejected(records);
        records.faults.push(fault(2.5, 2.95, TERMS));
    });
    let counts = keeps(removal(), |records| {
        [What::LogOut, What::LogOutEverywhere, What::ChangePassword, What::LogIn].into_iter().for_each(|what| {
            tries(what, 3.0, 4.0, unavailable())(records);
        });
    });
    assert_eq!((counts.counts.logouts, counts.counts.password_changes), (2, 1));
    let forbidden = || Outcome::Refused(403, "forbidden".into());
    let suspended = |outcome: Outcome| {
        move |records: &mut Records| {
            tries(What::Suspend, 3.0, 4.0, unavailable())(records);
            let attempts = vec![attempt(4.2, 4.3, outcome), attempt(4.4, 4.5, forbidden())];
            records.acts.push(Act { what: What::LogInSuspended, attempts, known: Some(s(4.5)) });
            tries(What::Restore, 4.6, 4.7, unavailable())(records);
        }
    };
    assert_eq!(keeps(removal(), suspended(unavailable())).counts.suspensions, 1);
    assert_eq!(breaks("I6", removal(), suspended(Outcome::Done)).trespassed, 1);
    keeps(removal(), |records| {
        let attempts = vec![attempt(4.4, 4.5, forbidden())];
        records.acts.push(Act { what: What::LogInSuspended, attempts, known: Some(s(4.5)) });
        records.faults.push(fault(4.3, 4.6, GENTLE));
    });
}

#[test]
fn guests_are_no_sign_of_trouble() {
    let during = |records: &mut Records| records.faults.push(fault(4.05, 4.9, CARRIES_ON));
    assert_eq!(keeps(removal(), during).recoveries[0].1, Duration::ZERO);
    let nothing_removed = told(true, &[Ok(joins()), Err(GUEST)], entries(&mut removal())[..3].to_vec());
    breaks("proof", nothing_removed, |_| ());
}
