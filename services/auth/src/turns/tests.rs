use std::sync::mpsc;

use confab_common::Code;

use super::*;

const ATTACKER: u8 = 3;

fn ticket(address: u8, name: u64, is_known: bool) -> Ticket {
    Ticket { address: [127, 0, 0, address].into(), name, is_known }
}

/// A queue with room for that many, on which no thread works.
fn queue(capacity: usize) -> Shared {
    Shared::new(capacity)
}

fn push(shared: &Shared, address: u8, name: u64, is_known: bool) {
    shared.push(Waiter { ticket: ticket(address, name, is_known), work: Box::new(|| {}) });
}

/// In which order the waiters get their turns.
fn order(shared: &Shared) -> Vec<(u8, u64)> {
    let mut queue = shared.queue();
    std::iter::from_fn(|| queue.take_next()).map(|waiter| of(&waiter)).collect()
}

fn of(waiter: &Waiter) -> (u8, u64) {
    let IpAddr::V4(address) = waiter.ticket.address else { panic!("IPv4 only here") };
    (address.octets()[3], waiter.ticket.name)
}

#[test]
fn the_newest_goes_first_among_equals() {
    let shared = queue(9);
    (1..=3).for_each(|address| push(&shared, address, 0, false));
    assert_eq!(order(&shared), [(3, 0), (2, 0), (1, 0)]);
}

#[test]
fn a_crowd_of_one_address_goes_last() {
    let shared = queue(9);
    push(&shared, 1, 0, false);
    (0..4).for_each(|name| push(&shared, ATTACKER, name, false));
    assert_eq!(order(&shared)[0], (1, 0));
}

#[test]
fn behind_one_address_the_name_that_all_ask_for_goes_last() {
    let shared = queue(9);
    push(&shared, 1, 7, false);
    (0..4).for_each(|_| push(&shared, 1, 8, false));
    assert_eq!(order(&shared)[0], (1, 7));
}

#[test]
fn every_other_turn_is_for_known_clients() {
    let shared = queue(9);
    (0..2).for_each(|_| push(&shared, ATTACKER, 1, false));
    (4..8).for_each(|address| push(&shared, address, 0, true));
    let known = order(&shared).iter().map(|(address, _)| *address != ATTACKER).collect::<Vec<_>>();
    assert_eq!(known, [false, true, false, true, true, true], "neither half of the turns is lost when the other side is absent");
}

#[test]
fn a_full_queue_refuses_the_oldest_of_the_largest_crowd() {
    let shared = queue(4);
    push(&shared, 1, 0, false);
    push(&shared, 2, 0, true);
    (0..100).for_each(|name| push(&shared, ATTACKER, name, false));
    let order = order(&shared);
    assert_eq!(order.len(), 4);
    assert!(order.contains(&(1, 0)) && order.contains(&(2, 0)) && order.contains(&(ATTACKER, 99)) && order.contains(&(ATTACKER, 98)));
}

#[test]
fn known_clients_are_refused_after_all_strangers() {
    let shared = queue(3);
    (0..3).for_each(|_| push(&shared, 1, 0, true));
    (2..50).for_each(|address| push(&shared, address, 0, false));
    assert_eq!(order(&shared), [(1, 0); 3]);
}

#[tokio::test]
async fn work_is_done_and_what_is_refused_says_so() {
    let turns = Turns(Arc::new(queue(1)));
    let worker = turns.0.clone();
    let (first, second) = (turns.run(ticket(1, 0, false), || 1), turns.run(ticket(1, 0, false), || 2));
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    let error = first.await.unwrap_err();
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    let thread = std::thread::spawn(move || worker.work());
    assert_eq!(second.await.unwrap(), 2);
    drop(turns);
    thread.join().unwrap();
}

#[tokio::test]
async fn what_its_caller_has_given_up_is_not_run_and_a_panic_ends_no_thread() {
    let turns = Turns(Arc::new(queue(9)));
    let (ran, runs) = mpsc::channel();
    let mut dropped = Box::pin(turns.run(ticket(1, 0, false), move || ran.send(()).unwrap()));
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    let worker = turns.0.clone();
    let thread = std::thread::spawn(move || worker.work());
    let broken = turns.run(ticket(1, 0, false), || panic!("on purpose")).await;
    assert_eq!(broken.map(|()| 0).unwrap_err().code, Code::Unavailable);
    assert_eq!(turns.run(ticket(1, 0, false), || 3).await.unwrap(), 3);
    drop(turns);
    thread.join().unwrap();
    assert!(runs.try_recv().is_err());
}
