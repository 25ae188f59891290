use std::time::Duration;

use confab_socketio::budget::Holder;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;

/// Longer than the check interval of a holder above its share.
const LONG: Duration = Duration::from_millis(500);
const MEBIBYTE: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn one_holder_reads_two_pages_and_none_above_its_share() {
    let budget = Arc::new(Budget::new(100 * MEBIBYTE, Arc::default()));
    let pages = Pages::new(budget.clone());
    let [one, other] = [1, 2].map(|id| budget.share(Holder::Owner(Uuid::from_u128(id))));
    let permits = [pages.acquire(one.clone()).await, pages.acquire(one.clone()).await];
    let waits = async |share: &Arc<Share>| timeout(LONG, pages.acquire(share.clone())).await.is_err();
    assert_eq!([waits(&one).await, waits(&other).await], [true, false]);
    drop(permits);
    assert!(!waits(&one).await);
    budget.count(&one, 0, 60 * MEBIBYTE, true);
    assert_eq!([waits(&one).await, waits(&other).await], [true, false]);
    // A holder above its share holds no common permit while it waits.
    let waiting = (0..MAX_PAGES).map(|_| Box::pin(pages.acquire(one.clone()))).collect::<Vec<_>>();
    let mut all = futures::future::join_all(waiting);
    assert!(futures::poll!(&mut all).is_pending());
    assert!(!waits(&other).await);
}

#[tokio::test(start_paused = true)]
async fn a_user_without_a_socket_reads_two_pages_too() {
    let budget = Arc::new(Budget::new(MEBIBYTE, Arc::default()));
    let pages = Pages::new(budget.clone());
    // Each request looks the share up; only the permits keep it.
    let request = async || timeout(LONG, pages.acquire(budget.share(Holder::Owner(Uuid::from_u128(1))))).await;
    let permits = [request().await.unwrap(), request().await.unwrap()];
    assert!(request().await.is_err());
    drop(permits);
    assert!(request().await.is_ok());
}

#[tokio::test]
async fn permits_to_send_return_when_they_are_dropped() {
    let share = Share::default();
    let mut permits = SendPermits::acquire(&share).await;
    assert_eq!(permits.try_more(1000), MAX_SENDS - 1);
    let mut waiting = Box::pin(SendPermits::acquire(&share));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(permits);
    assert_eq!(waiting.await.try_more(1000), MAX_SENDS - 1);
}
