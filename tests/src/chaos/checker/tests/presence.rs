//! Presence and typing.

use super::super::super::signals::{Status, Stay, Typed, TypingShown, Watch};
use super::super::super::terms::AUTH;
use super::*;

fn watch(shown: &[(f64, Status)]) -> Watch {
    let shown = shown.iter().map(|(at, status)| (s(*at), *status)).collect();
    Watch { name: "a watcher", user: SENDER, from: s(0.0), until: s(200.0), shown }
}

/// How often presence and typing are wrong; no other promise may be broken.
#[track_caller]
fn wrong(change: impl FnOnce(&mut Records)) -> (usize, usize) {
    let mut records = good();
    records.signals.stays = vec![Stay { user: SENDER, from: s(10.0), until: s(100.0) }];
    change(&mut records);
    let verdict = check(&records);
    let counts = &verdict.counts;
    assert_eq!(verdict.violations.len(), counts.mispresented + counts.overtyped, "{:?}", verdict.violations);
    (counts.mispresented, counts.overtyped)
}

fn shows(shown: &[(f64, Status)]) -> impl FnOnce(&mut Records) {
    move |records| records.signals.watches.push(watch(shown))
}

#[test]
fn presence_in_time_is_no_violation() {
    use Status::{Offline, Online};
    assert_eq!(wrong(shows(&[(0.0, Offline), (11.0, Online), (144.0, Offline)])), (0, 0));
}

#[test]
fn late_presence_is_detected() {
    use Status::{Offline, Online, Unknown};
    assert_eq!(wrong(shows(&[(0.0, Offline), (12.5, Online), (112.0, Offline)])), (1, 0));
    assert_eq!(wrong(shows(&[(0.0, Offline), (11.0, Online), (146.0, Offline)])), (1, 0));
    // Never shown as offline.
    assert_eq!(wrong(shows(&[(0.0, Offline), (11.0, Online)])), (1, 0));
    // Shown as offline or unknown while connected all the time.
    assert_eq!(
        wrong(shows(&[(0.0, Offline), (11.0, Online), (50.0, Offline), (51.0, Online), (112.0, Offline)])),
        (1, 0)
    );
    assert_eq!(
        wrong(shows(&[(0.0, Offline), (11.0, Online), (50.0, Unknown), (51.0, Online), (112.0, Offline)])),
        (1, 0)
    );
}

#[test]
fn only_faults_of_gateways_and_the_bus_excuse() {
    use Status::{Offline, Online};
    let during = |terms| {
        move |records: &mut Records| {
            shows(&[(0.0, Offline), (13.0, Online), (112.0, Offline)])(records);
            records.faults.push(fault(9.0, 11.0, Terms { recovers: Duration::from_secs(3), ..terms }));
        }
    };
    let (excused, not) = (wrong_during(during(TERMS)), wrong_during(during(AUTH)));
    assert_eq!((excused, not), (0, 1));
}

/// As [`wrong`], for a fault that other promises notice, too.
fn wrong_during(change: impl FnOnce(&mut Records)) -> usize {
    let mut records = good();
    records.signals.stays = vec![Stay { user: SENDER, from: s(10.0), until: s(100.0) }];
    change(&mut records);
    check(&records).counts.mispresented
}

#[test]
fn typing_shown_too_long_is_detected() {
    let typing = |at: f64, expires_in: f64| {
        move |records: &mut Records| {
            let (user, room) = (SENDER, ROOM);
            records.signals.typed.push(Typed { user, room, begun: s(1.0), ended: s(1.1) });
            records.signals.typing.push(TypingShown { user, room, at: s(at), expires_in: s(expires_in) });
        }
    };
    assert_eq!(wrong(typing(1.05, 6.0)), (0, 0));
    assert_eq!(wrong(typing(3.0, 6.0)), (0, 0));
    assert_eq!(wrong(typing(3.2, 6.0)), (0, 1));
    assert_eq!(wrong(typing(1.2, 9.0)), (0, 1));
    // No one typed.
    assert_eq!(wrong(typing(0.5, 6.0)), (0, 1));
}
