use std::net::{IpAddr, Ipv4Addr};

use super::*;

fn address(last: u8) -> ClientAddress {
    ClientAddress::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
}

fn take_all(shares: &Arc<Shares>, last: u8) -> Vec<Share> {
    std::iter::from_fn(|| shares.take(address(last))).collect()
}

#[test]
fn one_address_can_take_four_fifths() {
    let shares = Shares::of(200);
    let mut first = take_all(&shares, 1);
    assert_eq!(first.len(), 160);
    first.pop();
    first.extend(take_all(&shares, 1));
    assert_eq!(first.len(), 160);
    let second = take_all(&shares, 2);
    assert_eq!(second.len(), 32);
    assert!((3..8).all(|last| shares.take(address(last)).is_some()), "permits remain for other addresses");
}

#[test]
fn a_single_permit_can_be_taken() {
    assert_eq!(take_all(&Shares::of(1), 1).len(), 1);
}

#[test]
fn the_table_shrinks_after_a_burst() {
    let shares = Shares::of(100_000);
    let address = |n: u32| ClientAddress::from(IpAddr::V4(Ipv4Addr::from(n)));
    let held = (0..50_000).map(|n| shares.take(address(n)).unwrap()).collect::<Vec<_>>();
    drop(held);
    assert!(shares.counts.lock().by_address.is_empty() && shares.counts.lock().by_address.capacity() < 10_000);
}
