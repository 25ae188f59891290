use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use confab_common::Code;
use confab_common::grpc::{Services, in_process};
use futures::future::join_all;
use prost::Message;
use tokio::sync::Semaphore;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::testing::{eventually, fake};

impl From<ListEventsResponse> for Page {
    fn from(page: ListEventsResponse) -> Self {
        let read = Read::from(page);
        Self { part: 0..read.events.len(), read: read.into() }
    }
}

const ROOM: Uuid = Uuid::from_u128(7);

/// A room of `last` events. Reads are counted, wait for a permit, and fail while the room is empty.
struct Log {
    last: AtomicU64,
    reads: AtomicU64,
    permits: Semaphore,
}

fn history(last: u64, permits: usize) -> (Arc<Log>, Arc<History>) {
    let log = Arc::new(Log { last: last.into(), reads: AtomicU64::new(0), permits: Semaphore::new(permits) });
    let (theirs, gate) = (log.clone(), log.clone());
    let answer = fake(move |_, body: Bytes| {
        let (request, last) = (ListEventsRequest::decode(body).unwrap(), theirs.last.load(Ordering::SeqCst));
        let events = match request.after {
            Some(after) => after + 1..last.min(after + u64::from(request.limit)) + 1,
            None => last + 1 - u64::from(request.limit).min(last)..last + 1,
        };
        let events = events.map(|seq| Event { seq, ..Event::default() }).collect();
        match last {
            0 => Err(Error::unavailable("the message service")),
            _ => Ok(ListEventsResponse { epoch: "e".into(), last_seq: last, events, more: false }.encode_to_vec()),
        }
    });
    let message = in_process(service_fn(move |request| {
        let (answer, gate) = (answer.clone(), gate.clone());
        async move {
            gate.reads.fetch_add(1, Ordering::SeqCst);
            gate.permits.acquire().await.unwrap().forget();
            answer.oneshot(request).await
        }
    }));
    let clients = Clients::new(Services { message, ..Services::none() }, std::time::Duration::from_secs(20));
    (log, History::new(clients))
}

fn seqs(page: &Page) -> Vec<u64> {
    page.events().iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn one_read_serves_all_earlier_requests() {
    let (log, history) = history(900, 9);
    let wanted = (0..500).map(|n| if n % 5 == 0 { Wanted::End } else { Wanted::After(800 + n % 120) });
    let pages = join_all(wanted.clone().map(|wanted| history.read(ROOM, wanted))).await;
    for (wanted, page) in wanted.zip(pages) {
        let page = page.unwrap();
        assert_eq!((page.last_seq(), page.epoch()), (900, "e"));
        match wanted {
            Wanted::After(after) => assert_eq!(seqs(&page), (after + 1..901).collect::<Vec<_>>()),
            _ => assert!(page.events().is_empty()),
        }
    }
    assert_eq!(log.reads.load(Ordering::SeqCst), 1);
    let newest = join_all([1, 50, 7].map(|count| history.read(ROOM, Wanted::Last(count)))).await;
    assert_eq!(newest.into_iter().map(|page| seqs(&page.unwrap()).len()).collect::<Vec<_>>(), [1, 50, 7]);
    assert_eq!(log.reads.load(Ordering::SeqCst), 2);
    // A reader that requests no events adds no read.
    assert!(history.read(ROOM, Wanted::End).await.unwrap().events().is_empty());
    assert!(history.waiting.lock().is_empty());
}

#[tokio::test]
async fn a_request_during_a_read_is_served_by_the_next_read() {
    let (log, history) = history(5, 0);
    let first = tokio::spawn({
        let history = history.clone();
        async move { history.read(ROOM, Wanted::After(3)).await }
    });
    eventually(|| log.reads.load(Ordering::SeqCst) == 1).await;
    let later = [1, 2].map(|after| {
        tokio::spawn({
            let history = history.clone();
            async move { history.read(ROOM, Wanted::After(after)).await }
        })
    });
    eventually(|| history.waiting.lock()[&(ROOM, false)].len() == 2).await;
    log.permits.add_permits(1);
    assert_eq!(seqs(&first.await.unwrap().unwrap()), [4, 5]);
    eventually(|| log.reads.load(Ordering::SeqCst) == 2).await;
    log.last.store(6, Ordering::SeqCst);
    log.permits.add_permits(1);
    for (after, page) in (2..).zip(join_all(later).await) {
        assert_eq!(seqs(&page.unwrap().unwrap()), (after..7).collect::<Vec<_>>());
    }
    eventually(|| history.waiting.lock().is_empty()).await;
    assert_eq!(log.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_distant_range_gets_a_separate_read() {
    let (log, history) = history(1000, 9);
    let wanted = [0, 90, 150, 700, 990, 1000, 5000, u64::MAX];
    let pages = join_all(wanted.map(|after| history.read(ROOM, Wanted::After(after)))).await;
    let ranges = pages.into_iter().map(|page| {
        let seqs = seqs(&page.unwrap());
        (seqs.first().copied().unwrap_or_default(), seqs.len())
    });
    assert_eq!(
        ranges.collect::<Vec<_>>(),
        [(1, 200), (91, 110), (151, 200), (701, 200), (991, 10), (0, 0), (0, 0), (0, 0)]
    );
    assert_eq!(log.reads.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_failed_read_fails_all_readers_and_cancelled_readers_are_dropped() {
    let (log, history) = history(0, 0);
    let mut gave_up = Box::pin(history.read(ROOM, Wanted::After(1)));
    assert!(futures::poll!(&mut gave_up).is_pending());
    drop(gave_up);
    log.permits.add_permits(9);
    let failed = join_all([2, 3].map(|after| history.read(ROOM, Wanted::After(after)))).await;
    assert!(failed.into_iter().all(|page| page.unwrap_err().code == Code::Unavailable));
    eventually(|| history.waiting.lock().is_empty()).await;
}
