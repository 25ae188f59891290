//! Events that take clients out of a room.

use super::*;

const ADA: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

fn of(id: u64, user: Uuid) -> Arc<Client> {
    Arc::new(Client { id, user: Some(user), ..Client::default() })
}

fn removes(user: Uuid) -> Effect {
    Effect::Removes(Arc::new([user].into()))
}

/// Fans out one run of events, numbered from `first`, with these effects.
fn run<const N: usize>(hub: &Hub<Client>, first: u64, effects: [Effect; N]) -> usize {
    run_all(hub, first, effects.into())
}

fn run_all(hub: &Hub<Client>, first: u64, effects: Vec<Effect>) -> usize {
    let deliveries = (first..).zip(effects).map(|(seq, effect)| Delivery { room: ROOM, seq, effect, event: seq });
    let deliveries = deliveries.collect::<Vec<_>>();
    let delivered = hub.fan_out(&deliveries, |seq| Frame::engine(&seq.to_string()), &mut Vec::new());
    hub.check_invariants();
    delivered
}

#[test]
fn a_removal_is_the_last_event_of_all_clients_of_its_user() {
    let (hub, phone, laptop, other) = (Hub::new(), of(1, ADA), of(2, ADA), of(3, BOB));
    for client in [&phone, &laptop, &other] {
        join(&hub, client, 0);
    }
    assert_eq!(run(&hub, 1, [Effect::None, removes(ADA), Effect::None]), 2 + 2 + 3);
    for client in [&phone, &laptop] {
        assert_eq!(client.received(), ["1", "2", "evicted"]);
        assert!(!hub.leave(ROOM, client.id), "a later leave has no effect");
    }
    assert_eq!(run(&hub, 4, [Effect::None, removes(BOB), Effect::None]), 2);
    assert_eq!(other.received(), ["1", "2", "3", "4", "5", "evicted"]);
    assert!(hub.partitions().is_empty());
}

#[test]
fn a_removal_during_a_join_makes_only_its_user_read_history_again() {
    let (hub, removed, other) = (Hub::new(), of(1, ADA), of(2, BOB));
    let joins = [&removed, &other].map(|client| hub.begin_join(ROOM, 0, client));
    run(&hub, 1, [Effect::None, removes(ADA), Effect::None]);
    assert_eq!(hub.go_live(&joins[0], &removed, 1, &plain()), Err(NotLive::Behind));
    assert_eq!(hub.go_live(&joins[1], &other, 1, &plain()), Ok(()));
    hub.check_invariants();
    assert_eq!(other.received(), ["2", "3"]);
    // History shows that the user became a member again with event 3.
    assert_eq!(hub.go_live(&joins[0], &removed, 3, &plain()), Ok(()));
    say(&hub, ROOM, 4..=4);
    assert_eq!(removed.received(), ["4"]);
}

#[test]
fn a_client_that_joined_after_a_removal_stays() {
    let (hub, client) = (Hub::new(), of(1, ADA));
    // The log has a removal with event 2 and a new membership with event 3, and the fan-out is behind.
    join(&hub, &client, 3);
    assert_eq!(run(&hub, 1, [Effect::None, removes(ADA), Effect::None, Effect::None]), 1);
    join(&hub, &client, 5);
    assert_eq!(run(&hub, 5, [removes(ADA), Effect::None]), 1);
    assert_eq!(client.received(), ["4", "6"]);
    run(&hub, 7, [removes(ADA)]);
    assert_eq!(client.received(), ["7", "evicted"]);
}

#[test]
fn a_room_that_becomes_private_closes_its_clients_before_the_event() {
    let (hub, member, joining, late) = (Hub::new(), of(1, ADA), of(2, ADA), of(3, BOB));
    join(&hub, &member, 0);
    let join_of_member = hub.begin_join(ROOM, 0, &joining);
    join(&hub, &late, 2);
    assert_eq!(run(&hub, 1, [Effect::None, Effect::Hides, Effect::None]), 2);
    assert_eq!((member.received(), late.received()), (vec!["1".into(), "resynced".into()], vec!["3".into()]));
    assert_eq!(hub.go_live(&join_of_member, &joining, 1, &plain()), Err(NotLive::Behind));
    assert_eq!(hub.go_live(&join_of_member, &joining, 2, &plain()), Ok(()));
    assert_eq!(joining.received(), ["3"]);
    // A run that begins with the event is delivered to no client in the room.
    assert_eq!(run(&hub, 4, [Effect::Hides]), 0);
    assert_eq!((joining.received(), late.received()), (vec!["resynced".into()], vec!["resynced".into()]));
    assert!(hub.partitions().is_empty());
}

#[test]
fn a_failed_second_join_does_not_keep_a_removed_client() {
    for (effect, user, stays) in [(removes(ADA), ADA, false), (Effect::Hides, ADA, false), (removes(ADA), BOB, true)] {
        let (hub, client) = (Hub::new(), of(1, user));
        join(&hub, &client, 0);
        say(&hub, ROOM, 1..=1);
        let again = hub.begin_join(ROOM, 0, &client);
        run(&hub, 2, [effect, Effect::None]);
        assert!(hub.cancel_join(&again, &client), "the client stays or reconnects");
        hub.check_invariants();
        assert_eq!(hub.members(ROOM).len(), usize::from(stays));
        assert_eq!(client.received(), if stays { vec!["1", "2", "3"] } else { vec!["1", "resynced"] });
    }
}

#[test]
fn a_removal_is_remembered_when_the_tail_overflows() {
    let (hub, client) = (Hub::new(), of(1, ADA));
    let joining = hub.begin_join(ROOM, 0, &client);
    run(&hub, 1, [removes(ADA)]);
    let large = [Delivery { room: ROOM, seq: 2, effect: Effect::None, event: () }];
    hub.fan_out(&large, |()| Frame::engine(&"x".repeat(MAX_BYTES)), &mut Vec::new());
    hub.check_invariants();
    for last_seq in 0..2 {
        assert_eq!(hub.go_live(&joining, &client, last_seq, &plain()), Err(NotLive::Behind));
    }
    assert_eq!(hub.go_live(&joining, &client, 2, &plain()), Ok(()));
}

/// The visibility and the members of a room after an event.
#[derive(Clone)]
struct State {
    private: bool,
    members: [bool; USERS],
    effect: Effect,
}

const USERS: usize = 4;

impl State {
    fn admits(&self, user: usize) -> bool {
        !self.private || self.members[user]
    }

    /// The state after a random event.
    fn next(&self, random: &mut impl FnMut(u64) -> u64) -> Self {
        let mut next = Self { effect: Effect::None, ..self.clone() };
        let user = random(USERS as u64) as usize;
        match random(30) {
            0 | 1 => {
                next.members[user] = false;
                if self.private {
                    next.effect = removes(id_of(user));
                }
            }
            2..=5 => next.members[user] = true,
            6 => {
                next.private = !self.private;
                if next.private {
                    next.effect = Effect::Hides;
                }
            }
            _ => {}
        }
        next
    }
}

fn id_of(user: usize) -> Uuid {
    Uuid::from_u128(user as u128)
}

/// For any sequence of operations, a client receives only events whose predecessor its user may read, without holes;
/// after the event that removes its user it receives none until it joins again.
#[test]
fn random_changes_of_members_never_reach_a_removed_user() {
    let mut random = random();
    let hub = Hub::new();
    let clients = (0..2 * USERS).map(|id| of(id as u64, id_of(id % USERS))).collect::<Vec<_>>();
    // The joins in progress, each with the `last_seq` of the history that it read.
    let mut joins = vec![None::<(Joining, Option<usize>)>; clients.len()];
    // The states of the log; commits are ahead of the fan-out.
    let mut log = vec![State { private: false, members: [true; USERS], effect: Effect::None }];
    let (mut fanned, mut behind) = (0, 0);
    let fan_out = |log: &[State], from: usize, to: usize| {
        run_all(&hub, from as u64 + 1, log[from + 1..=to].iter().map(|state| state.effect.clone()).collect());
        to
    };
    for _ in 0..50_000 {
        let at = random(clients.len() as u64) as usize;
        let (client, last) = (&clients[at], log.len() - 1);
        match random(8) {
            0 | 1 => {
                for _ in 0..=random(3) {
                    log.push(log[log.len() - 1].next(&mut random));
                }
            }
            2 | 3 if fanned < last => {
                fanned = fan_out(&log, fanned, fanned + 1 + random((last - fanned) as u64) as usize)
            }
            4 | 5 => {
                joins[at] = match joins[at] {
                    None if random(8) > 0 => None,
                    None => Some((hub.begin_join(ROOM, 0, client), None)),
                    Some((joining, None)) if log[last].admits(at % USERS) => Some((joining, Some(last))),
                    Some((_, None)) => {
                        hub.leave(ROOM, client.id);
                        client.received.lock().push("left".into());
                        None
                    }
                    Some((joining, Some(read))) => {
                        let answer = answered(&format!("answer {read}"));
                        let live = hub.go_live(&joining, client, read as u64, &answer);
                        behind += usize::from(live == Err(NotLive::Behind));
                        assert_ne!(live, Err(NotLive::Cancelled));
                        live.is_err().then_some((joining, None))
                    }
                }
            }
            6 if random(4) == 0 => {
                let Some((joining, _)) = joins[at].take() else { continue };
                if !hub.cancel_join(&joining, client) {
                    client.received.lock().push("left".into());
                }
            }
            7 if random(8) == 0 => {
                hub.leave(ROOM, client.id);
                joins[at] = None;
                client.received.lock().push("left".into());
            }
            _ => {}
        }
        hub.check_invariants();
    }
    let last = fan_out(&log, fanned, log.len() - 1);
    let (mut evicted, mut resynced) = (0, 0);
    for (at, client) in clients.iter().enumerate() {
        let (user, mut next) = (at % USERS, None);
        for line in client.received() {
            match (line.strip_prefix("answer "), &*line) {
                (Some(answer), _) => next = Some(answer.parse::<usize>().unwrap() + 1),
                (None, "evicted") => {
                    assert_eq!(log[next.unwrap() - 1].effect, removes(id_of(user)));
                    (next, evicted) = (None, evicted + 1);
                }
                (None, "resynced") => (next, resynced) = (None, resynced + 1),
                (None, "left") => next = None,
                (None, seq) => {
                    let seq = seq.parse::<usize>().unwrap();
                    assert_eq!(Some(seq), next);
                    assert!(log[seq - 1].admits(user) && log[seq].effect != Effect::Hides);
                    next = Some(seq + 1);
                }
            }
        }
        if joins[at].is_none() && next.is_some() {
            assert_eq!(next, Some(last + 1), "a client in the room has all events");
        }
    }
    assert!(evicted > 20 && resynced > 20 && behind > 20, "{evicted} {resynced} {behind}");
}
