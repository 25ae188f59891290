use confab_common::Code;

use super::*;

const ATTACKER: u8 = 3;

fn ticket(address: u8, name: u64, is_known: bool) -> Ticket {
    Ticket { address: [127, 0, 0, address].into(), name, is_known }
}

/// A queue with this number of waiting logins and no free turn.
struct Waiting {
    shared: Arc<Shared>,
    /// The callers of the waiting logins.
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

/// Returns the order in which the waiters get their turns.
fn order(waiting: &Waiting) -> Vec<(u8, u64)> {
    let mut queue = waiting.shared.queue.lock();
    std::iter::from_fn(|| queue.take_next()).map(|waiter| of(&waiter)).collect()
}

fn of(waiter: &Waiter) -> (u8, u64) {
    let IpAddr::V4(address) = waiter.ticket.address else { panic!("an IPv4 address") };
    (address.octets()[3], waiter.ticket.name)
}

#[test]
fn newest_of_equals_goes_first() {
    let mut waiting = queue(9);
    (1..=3).for_each(|address| push(&mut waiting, address, 0, false));
    assert_eq!(order(&waiting), [(3, 0), (2, 0), (1, 0)]);
}

#[test]
fn address_with_most_waiters_goes_last() {
    let mut waiting = queue(9);
    push(&mut waiting, 1, 0, false);
    (0..4).for_each(|name| push(&mut waiting, ATTACKER, name, false));
    assert_eq!(order(&waiting)[0], (1, 0));
}

#[test]
fn name_with_most_waiters_of_an_address_goes_last() {
    let mut waiting = queue(9);
    push(&mut waiting, 1, 7, false);
    (0..4).for_each(|_| push(&mut waiting, 1, 8, false));
    assert_eq!(order(&waiting)[0], (1, 7));
}

#[test]
fn every_second_turn_is_for_known_clients() {
    let mut waiting = queue(9);
    (0..2).for_each(|_| push(&mut waiting, ATTACKER, 1, false));
    (4..8).for_each(|address| push(&mut waiting, address, 0, true));
    let known = order(&waiting).iter().map(|(address, _)| *address != ATTACKER).collect::<Vec<_>>();
    assert_eq!(known, [false, true, false, true, true, true], "when one side is absent, the other side gets all turns");
}

#[test]
fn full_queue_rejects_the_oldest_of_the_busiest_address() {
    let mut waiting = queue(4);
    push(&mut waiting, 1, 0, false);
    push(&mut waiting, 2, 0, true);
    (0..100).for_each(|name| push(&mut waiting, ATTACKER, name, false));
    let order = order(&waiting);
    assert_eq!(order.len(), 4);
    assert!(
        order.contains(&(1, 0))
            && order.contains(&(2, 0))
            && order.contains(&(ATTACKER, 99))
            && order.contains(&(ATTACKER, 98))
    );
}

#[test]
fn known_clients_are_rejected_last() {
    let mut waiting = queue(3);
    (0..3).for_each(|_| push(&mut waiting, 1, 0, true));
    (2..50).for_each(|address| push(&mut waiting, address, 0, false));
    assert_eq!(order(&waiting), [(1, 0); 3]);
}

fn free(turns: &Turns) -> usize {
    turns.0.queue.lock().free
}

#[tokio::test]
async fn dropped_turn_goes_to_the_next_waiter() {
    let turns = Turns(Arc::new(Shared::new(1, 1)));
    let turn = turns.take(ticket(1, 0, false)).await.unwrap();
    let (mut first, mut second) =
        (Box::pin(turns.take(ticket(1, 0, false))), Box::pin(turns.take(ticket(1, 0, false))));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    let error = first.await.err().unwrap();
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    drop(turn);
    drop(second.await.unwrap());
    assert_eq!(free(&turns), 1);
}

#[tokio::test]
async fn dropped_callers_get_no_turn() {
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
    // The turn has been granted, and its caller has not polled for it.
    let mut unseen = Box::pin(turns.take(ticket(1, 0, false)));
    assert!(futures::poll!(&mut unseen).is_pending());
    drop(turn);
    assert_eq!(free(&turns), 0);
    drop(unseen);
    assert_eq!(free(&turns), 1);
}
