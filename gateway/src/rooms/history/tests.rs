mod changed;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_common::Code;
use confab_common::grpc::{Services, in_process};
use confab_proto::message::v1::Event;
use futures::future::join_all;
use prost::Message;
use tokio::sync::Semaphore;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::testing::{eventually, fake};

impl From<ListEventsResponse> for Page {
    fn from(page: ListEventsResponse) -> Self {
        let read = Read::new(0, None, &page);
        Self { part: read.all(), more: read.more, read: read.into() }
    }
}

impl Page {
    /// The page of a read with these numbers.
    pub fn after(after: u64, from: u64, page: ListEventsResponse) -> Self {
        let read = Read::new(after, Some(from), &page);
        Self { part: read.all(), more: read.more, read: read.into() }
    }
}

const ROOM: Uuid = Uuid::from_u128(7);

/// The events after this `seq`, without changed messages.
fn beyond(after: u64) -> Wanted {
    Wanted::After { after, changed_from: None }
}

/// A room of `last` events. Reads are counted, wait for a permit, and fail while the room is empty.
struct Log {
    last: AtomicU64,
    reads: AtomicU64,
    /// Most users in one read so far.
    most_users: AtomicU64,
    permits: Semaphore,
    /// The members, if the room is private.
    members: Mutex<Option<HashSet<Uuid>>>,
    /// Whether the service knows no credential, and refuses that of user 2.
    is_new: AtomicBool,
    /// Whether the service cannot verify the credential of user 2.
    is_slow: AtomicBool,
}

fn history(last: u64, permits: usize) -> (Arc<Log>, Arc<History>) {
    let log = Arc::new(Log {
        last: last.into(),
        reads: AtomicU64::new(0),
        most_users: AtomicU64::new(0),
        permits: Semaphore::new(permits),
        members: Mutex::default(),
        is_new: AtomicBool::default(),
        is_slow: AtomicBool::default(),
    });
    let (theirs, gate) = (log.clone(), log.clone());
    let answer = fake(move |_, body: Bytes| {
        let (request, last) = (ListEventsRequest::decode(body).unwrap(), theirs.last.load(Ordering::SeqCst));
        theirs.most_users.fetch_max(request.readers.len() as u64, Ordering::SeqCst);
        let events = match request.after {
            Some(after) => after + 1..last.min(after + u64::from(request.limit)) + 1,
            None => last + 1 - u64::from(request.limit).min(last)..last + 1,
        };
        let more = if request.after.is_some() { events.end <= last } else { events.start > 1 };
        let events = events.map(|seq| Event { seq, ..Event::default() }).collect();
        let is_new = theirs.is_new.load(Ordering::SeqCst);
        if is_new && !request.readers.is_empty() && request.credentials.is_empty() {
            return Ok(ListEventsResponse { credentials_unknown: true, ..<_>::default() }.encode_to_vec());
        }
        let second = Uuid::from_u128(2).to_string();
        if theirs.is_slow.load(Ordering::SeqCst) && request.readers.contains(&second) {
            let refused_readers = vec![second];
            return Ok(
                ListEventsResponse { credentials_unknown: true, refused_readers, ..<_>::default() }.encode_to_vec()
            );
        }
        let refused_readers = if is_new { vec![second] } else { Vec::new() };
        if is_new && request.readers == refused_readers {
            return Err(Error::new(Code::Unauthorized, "the token is not valid"));
        }
        match last {
            0 => Err(Error::unavailable("the message service")),
            _ => {
                let members = theirs.members.lock();
                let is_member =
                    |user: &String| members.as_ref().is_some_and(|all| all.contains(&user.parse().unwrap()));
                let readers = request.readers.into_iter().filter(is_member).collect::<Vec<_>>();
                if members.is_some() && readers.is_empty() {
                    return Err(Error::new(Code::NotFound, "the room is not open to the readers"));
                }
                let (epoch, private) = ("e".into(), members.is_some());
                Ok(ListEventsResponse {
                    epoch,
                    last_seq: last,
                    events,
                    private,
                    readers,
                    refused_readers,
                    more,
                    ..ListEventsResponse::default()
                }
                .encode_to_vec())
            }
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
    let clients = Clients::new(Services { message, ..Services::none() }, Duration::from_secs(20));
    (log, History::new(clients))
}

fn seqs(page: &Page) -> Vec<u64> {
    page.events().iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn one_read_serves_all_earlier_requests() {
    let (log, history) = history(900, 9);
    let wanted = (0..500).map(|n| if n % 5 == 0 { Wanted::End } else { beyond(800 + n % 120) });
    let pages = join_all(wanted.clone().map(|wanted| history.read(ROOM, wanted, None))).await;
    for (wanted, page) in wanted.zip(pages) {
        let page = page.unwrap();
        assert_eq!((page.last_seq(), page.epoch()), (900, "e"));
        match wanted {
            Wanted::After { after, .. } => assert_eq!(seqs(&page), (after + 1..901).collect::<Vec<_>>()),
            _ => assert!(page.events().is_empty()),
        }
    }
    assert_eq!(log.reads.load(Ordering::SeqCst), 1);
    let newest = join_all([1, 50, 7].map(|count| history.read(ROOM, Wanted::Last(count), None))).await;
    assert_eq!(newest.into_iter().map(|page| seqs(&page.unwrap()).len()).collect::<Vec<_>>(), [1, 50, 7]);
    assert_eq!(log.reads.load(Ordering::SeqCst), 2);
    // A reader that requests no events adds no read.
    assert!(history.read(ROOM, Wanted::End, None).await.unwrap().events().is_empty());
    assert!(history.waiting.lock().is_empty());
}

#[tokio::test]
async fn a_request_during_a_read_is_served_by_the_next_read() {
    let (log, history) = history(5, 0);
    let first = tokio::spawn({
        let history = history.clone();
        async move { history.read(ROOM, beyond(3), None).await }
    });
    eventually(|| log.reads.load(Ordering::SeqCst) == 1).await;
    let later = [1, 2].map(|after| {
        tokio::spawn({
            let history = history.clone();
            async move { history.read(ROOM, beyond(after), None).await }
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
    let pages = join_all(wanted.map(|after| history.read(ROOM, beyond(after), None))).await;
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
    let mut gave_up = Box::pin(history.read(ROOM, beyond(1), None));
    assert!(futures::poll!(&mut gave_up).is_pending());
    drop(gave_up);
    log.permits.add_permits(9);
    let failed = join_all([2, 3].map(|after| history.read(ROOM, beyond(after), None))).await;
    assert!(failed.into_iter().all(|page| page.unwrap_err().code == Code::Unavailable));
    eventually(|| history.waiting.lock().is_empty()).await;
}

fn user(number: u128) -> Option<User> {
    Some(User { id: Uuid::from_u128(number), credential: Credential::of_token(&format!("token-{number}")) })
}

#[tokio::test]
async fn one_read_of_a_private_room_serves_only_its_members() {
    let (log, history) = history(9, 9);
    *log.members.lock() = Some([1, 3].map(Uuid::from_u128).into());
    let users = [user(1), user(2), None, user(3), user(1)];
    let pages = join_all(users.map(|user| history.read(ROOM, beyond(7), user))).await;
    let not_found = (Code::NotFound, Error::not_found("room").detail);
    let seqs = pages.iter().map(|page| page.as_ref().map(seqs).map_err(|error| (error.code, error.detail.clone())));
    let (member, stranger) = (Ok(vec![8, 9]), Err(not_found));
    assert_eq!(seqs.collect::<Vec<_>>(), [member.clone(), stranger.clone(), stranger.clone(), member.clone(), member]);
    assert_eq!((log.reads.load(Ordering::SeqCst), log.most_users.load(Ordering::SeqCst)), (1, 3));
    // Without a member among the readers, the service rejects the whole read, in other words.
    let pages = join_all([user(2), None].map(|user| history.read(ROOM, Wanted::End, user))).await;
    for page in pages {
        let error = page.unwrap_err();
        assert_eq!(Err((error.code, error.detail)), stranger);
    }
    *log.members.lock() = None;
    assert!(
        join_all([user(2), None].map(|user| history.read(ROOM, Wanted::End, user))).await.iter().all(Result::is_ok)
    );
    eventually(|| history.waiting.lock().is_empty()).await;
}

#[tokio::test]
async fn a_read_has_at_most_1000_users() {
    let (log, history) = history(9, 9);
    *log.members.lock() = Some((0..2500).map(Uuid::from_u128).collect());
    let pages = join_all((0..5000).map(|number| history.read(ROOM, Wanted::Last(1), user(number % 2500)))).await;
    assert!(pages.into_iter().all(|page| seqs(&page.unwrap()) == [9]));
    assert_eq!((log.reads.load(Ordering::SeqCst), log.most_users.load(Ordering::SeqCst)), (3, MAX_USERS as u64));
    assert!(history.waiting.lock().is_empty());
}

#[tokio::test]
async fn a_read_is_repeated_with_the_tokens_that_the_service_does_not_know() {
    let (log, history) = history(9, 9);
    log.is_new.store(true, Ordering::SeqCst);
    let users = [user(1), user(2), None];
    let pages = join_all(users.map(|user| history.read(ROOM, beyond(7), user))).await;
    let seqs = pages.iter().map(|page| page.as_ref().map(seqs).map_err(|error| error.code)).collect::<Vec<_>>();
    assert_eq!(seqs, [Ok(vec![8, 9]), Err(Code::Unauthorized), Ok(vec![8, 9])]);
    assert_eq!(log.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_user_whose_token_cannot_be_verified_delays_no_other_reader() {
    let (log, history) = history(9, 99);
    log.is_slow.store(true, Ordering::SeqCst);
    let read = |number: Option<u128>| {
        let history = history.clone();
        async move { history.read(ROOM, beyond(7), number.and_then(user)).await }
    };
    let second = tokio::spawn(read(Some(2)));
    let pages = join_all([Some(1), None].map(read)).await;
    assert!(pages.iter().all(|page| page.as_ref().is_ok_and(|page| seqs(page) == [8, 9])), "{pages:?}");
    assert_eq!(log.most_users.load(Ordering::SeqCst), 2, "all were in one read");
    assert!(!second.is_finished());
    log.is_slow.store(false, Ordering::SeqCst);
    assert_eq!(seqs(&second.await.unwrap().unwrap()), [8, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_verified_until_the_deadline_is_unavailable() {
    let (log, history) = history(9, 999);
    log.is_slow.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let page = history.read(ROOM, beyond(7), user(2)).await;
    assert_eq!(page.unwrap_err().code, Code::Unavailable);
    assert!((Duration::from_secs(19)..Duration::from_secs(20)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(history.waiting.lock().is_empty());
}

#[tokio::test]
async fn a_refused_token_fails_no_anonymous_reader() {
    let (log, history) = history(9, 9);
    log.is_new.store(true, Ordering::SeqCst);
    let pages = join_all([user(2), None].map(|user| history.read(ROOM, beyond(7), user))).await;
    let seqs = pages.iter().map(|page| page.as_ref().map(seqs).map_err(|error| error.code)).collect::<Vec<_>>();
    assert_eq!(seqs, [Err(Code::Unauthorized), Ok(vec![8, 9])]);
}

#[test]
fn a_read_has_at_most_4_mib_of_tokens() {
    let long = |number: u128| {
        let credential = Credential::of_token(&"x".repeat(8 * 1024));
        let reader = User { id: Uuid::from_u128(number), credential };
        let (answer, span) = (oneshot::channel().0, Span::default());
        Reader { wanted: Wanted::End, user: Some(reader), answer, span, is_waiting: false }
    };
    let mut waiting = (0..1000).map(long).collect::<Vec<_>>();
    let (readers, users) = next_readers(&mut waiting);
    assert_eq!((readers.len(), users.len(), waiting.len()), (512, 512, 488));
}
