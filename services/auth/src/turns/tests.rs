use confab_common::Code;

use super::*;

const ATTACKER: u8 = 3;

fn ticket(address: u8, name: u64, is_known: bool) -> Ticket {
    Ticket { address: [127, 0, 0, address].into(), name, is_known }
}

/// A queue with room for that many, in which none has its turn yet.
struct Waiting {
    shared: Arc<Shared>,
    /// Their callers, who have not given up.
    callers: Vec<oneshot::Receiver<Turn>>,
}

fn queue(capacity: usize) -> Waiting {
    Waiting { shared: Arc::new(Shared::new(0, capacity)), callers: Vec::new() }
}

fn push(waiting: &mut Waiting, address: u8, name: u64, is_known: bool) {
    let (sender, caller) = oneshot::channel();
    waiting.callers.push(caller);
    waiting.shared.push(Waiter { ticket: ticket(address, name, is_known), sender });
}

/// In which order the waiters get their turns.
fn order(waiting: &Waiting) -> Vec<(u8, u64)> {
    let mut queue = waiting.shared.queue.lock();
    std::iter::from_fn(|| queue.take_next()).map(|waiter| of(&waiter)).collect()
}

fn of(waiter: &Waiter) -> (u8, u64) {
    let IpAddr::V4(address) = waiter.ticket.address else { panic!("IPv4 only here") };
    (address.octets()[3], waiter.ticket.name)
}

#[test]
fn the_newest_goes_first_among_equals() {
    let mut waiting = queue(9);
    (1..=3).for_each(|address| push(&mut waiting, address, 0, false));
    assert_eq!(order(&waiting), [(3, 0), (2, 0), (1, 0)]);
}

#[test]
fn a_crowd_of_one_address_goes_last() {
    let mut waiting = queue(9);
    push(&mut waiting, 1, 0, false);
    (0..4).for_each(|name| push(&mut waiting, ATTACKER, name, false));
    assert_eq!(order(&waiting)[0], (1, 0));
}

#[test]
fn behind_one_address_the_name_that_all_ask_for_goes_last() {
    let mut waiting = queue(9);
    push(&mut waiting, 1, 7, false);
    (0..4).for_each(|_| push(&mut waiting, 1, 8, false));
    assert_eq!(order(&waiting)[0], (1, 7));
}

#[test]
fn every_other_turn_is_for_known_clients() {
    let mut waiting = queue(9);
    (0..2).for_each(|_| push(&mut waiting, ATTACKER, 1, false));
    (4..8).for_each(|address| push(&mut waiting, address, 0, true));
    let known = order(&waiting).iter().map(|(address, _)| *address != ATTACKER).collect::<Vec<_>>();
    assert_eq!(known, [false, true, false, true, true, true], "neither half of the turns is lost when the other side is absent");
}

#[test]
fn a_full_queue_refuses_the_oldest_of_the_largest_crowd() {
    let mut waiting = queue(4);
    push(&mut waiting, 1, 0, false);
    push(&mut waiting, 2, 0, true);
    (0..100).for_each(|name| push(&mut waiting, ATTACKER, name, false));
    let order = order(&waiting);
    assert_eq!(order.len(), 4);
    assert!(order.contains(&(1, 0)) && order.contains(&(2, 0)) && order.contains(&(ATTACKER, 99)) && order.contains(&(ATTACKER, 98)));
}

#[test]
fn known_clients_are_refused_after_all_strangers() {
    let mut waiting = queue(3);
    (0..3).for_each(|_| push(&mut waiting, 1, 0, true));
    (2..50).for_each(|address| push(&mut waiting, address, 0, false));
    assert_eq!(order(&waiting), [(1, 0); 3]);
}

fn free(turns: &Turns) -> usize {
    turns.0.queue.lock().free
}

#[tokio::test]
async fn a_turn_goes_on_to_the_next_and_what_is_refused_says_so() {
    let turns = Turns(Arc::new(Shared::new(1, 1)));
    let turn = turns.take(ticket(1, 0, false)).await.unwrap();
    let (mut first, mut second) = (Box::pin(turns.take(ticket(1, 0, false))), Box::pin(turns.take(ticket(1, 0, false))));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    let error = first.await.err().unwrap();
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    drop(turn);
    drop(second.await.unwrap());
    assert_eq!(free(&turns), 1);
}

#[tokio::test]
async fn callers_that_have_given_up_get_no_turn_and_keep_none_from_others() {
    let turns = Turns(Arc::new(Shared::new(1, 2)));
    let turn = turns.take(ticket(1, 0, false)).await.unwrap();
    for _ in 0..10 {
        let mut given_up = Box::pin(turns.take(ticket(2, 0, true)));
        assert!(futures::poll!(&mut given_up).is_pending());
    }
    let mut next = Box::pin(turns.take(ticket(1, 0, false)));
    assert!(futures::poll!(&mut next).is_pending());
    drop(turn);
    let turn = next.await.unwrap();
    // It has come, and its caller has not looked.
    let mut unseen = Box::pin(turns.take(ticket(1, 0, false)));
    assert!(futures::poll!(&mut unseen).is_pending());
    drop(turn);
    assert_eq!(free(&turns), 0);
    drop(unseen);
    assert_eq!(free(&turns), 1);
}
