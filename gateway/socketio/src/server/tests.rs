//! Which sessions the server closes, and which it leaves alone, when the memory limit is exceeded.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::budget::Held;
use crate::testing::{Silent, eventually, known, open, server};

fn frame(bytes: usize) -> Frame {
    Frame::engine(&"x".repeat(bytes))
}

fn is_closed(session: &Session<()>) -> bool {
    session.outbox.closing() == Some(Close::Now)
}

fn bounded(limit: usize) -> Arc<Server<Silent>> {
    server(Config::default(), limit)
}

#[tokio::test]
async fn the_owner_with_most_bytes_is_evicted_for_every_kind_of_bytes() {
    type Fill = fn(&Session<()>, usize);
    let fills: [Fill; 4] = [
        |session, bytes| session.outbox.push(frame(bytes)),
        |session, bytes| session.outbox.answer(&[frame(bytes)]),
        |session, bytes| session.outbox.keep(bytes),
        |session, bytes| session.outbox.hold(bytes),
    ];
    for fill in fills {
        let server = bounded(1_000_000);
        // Each honest client has more bytes queued than any single session of the greedy owner.
        let honest = (10..20).map(|owner| known(&server, owner)).collect::<Vec<_>>();
        honest.iter().for_each(|session| session.outbox.push(frame(30_000)));
        let greedy = (0..40).map(|_| known(&server, 1)).collect::<Vec<_>>();
        for session in &greedy {
            fill(session, 20_000);
        }
        eventually(|| greedy.iter().any(|session| is_closed(session))).await;
        tokio::time::sleep(2 * CHECK_INTERVAL).await;
        assert!(honest.iter().all(|session| session.outbox.closing().is_none()));
        assert!(greedy.iter().any(|session| session.outbox.closing().is_none()), "no more than necessary");
    }
}

#[tokio::test]
async fn the_largest_session_of_an_owner_is_evicted_first() {
    let server = bounded(500_000);
    let sessions = [100_000, 300_000, 150_000].map(|bytes| {
        let session = known(&server, 1);
        session.outbox.push(frame(bytes));
        session
    });
    eventually(|| is_closed(&sessions[1])).await;
    assert_eq!(sessions.map(|session| is_closed(&session)), [false, true, false]);
}

/// A connection that records whether it was cut.
#[derive(Default)]
struct Connection(AtomicBool);

impl Cut for Connection {
    fn cut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn unread_answers_to_an_owner_count_with_its_sessions() {
    let server = bounded(500_000);
    let [honest, greedy] = [2, 1].map(|owner| {
        let session = known(&server, owner);
        session.outbox.push(frame(120_000));
        session
    });
    let connections = [100_000, 200_000, 50_000].map(|bytes| {
        let connection = Arc::<Connection>::default();
        let cut: Weak<dyn Cut> = Arc::downgrade(&connection) as _;
        let holder = greedy.outbox.share().holder().unwrap();
        (Held::of(server.budget().clone(), holder, cut).with(bytes), connection)
    });
    let is_cut = |(_, connection): &(Held, Arc<Connection>)| connection.0.load(Ordering::SeqCst);
    eventually(|| is_cut(&connections[1])).await;
    assert_eq!(connections.each_ref().map(is_cut), [false, true, false]);
    assert_eq!([honest, greedy].map(|session| is_closed(&session)), [false; 2]);
}

#[tokio::test]
async fn unidentified_clients_count_for_their_address() {
    let server = bounded(200_000);
    let unknown = |last| {
        let session = open(&server, last);
        session.outbox.push(frame(12_000));
        session
    };
    let (other, known) = (unknown(2), known(&server, 1));
    known.outbox.push(frame(60_000));
    let many = (0..12).map(|_| unknown(1)).collect::<Vec<_>>();
    eventually(|| many.iter().any(|session| is_closed(session))).await;
    assert_eq!([other, known].map(|session| is_closed(&session)), [false; 2]);
}

#[tokio::test]
async fn pending_sessions_are_bounded() {
    let config = Config { max_pending_sessions: 3, ..Config::default() };
    let server = server(config, usize::MAX);
    let open = |last| crate::testing::open(&server, last);
    let long_known = known(&server, 1);
    let honest = open(2);
    let flood = (0..50).map(|_| open(1)).collect::<Vec<_>>();
    assert_eq!((server.registry.pending(), server.registry.count()), (3, 4));
    assert_eq!(
        [&long_known, &honest, &flood[47], &flood[48], &flood[49]].map(|session| is_closed(session)),
        [false, false, true, false, false]
    );
    // An identified session is no longer pending.
    let before = known(&server, 2);
    let after = open(1);
    assert_eq!((server.registry.pending(), is_closed(&before), is_closed(&after)), (3, false, false));
    let unbounded = crate::testing::server(Config { max_pending_sessions: 0, ..Config::default() }, usize::MAX);
    let open = |_| crate::testing::open(&unbounded, 1);
    assert!((0..5000).map(open).all(|session| !is_closed(&session)));
}
