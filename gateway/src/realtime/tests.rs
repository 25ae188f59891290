//! Which sessions are closed, and which need not even wait, when too much is held.

use std::sync::atomic::{AtomicBool, Ordering};

use confab_socketio::Frame;
use serde_json::json;
use tokio::time::timeout;

use super::testing::{World, address, connect};
use super::*;
use crate::memory::Held;
use crate::realtime::session::Transport;
use crate::testing::services::ROOM;
use crate::testing::{bus, eventually};

fn frame(bytes: usize) -> Frame {
    Frame::engine(&"x".repeat(bytes))
}

fn is_closed(session: &Session) -> bool {
    session.outbox.closing() == Some(Close::Now)
}

async fn over(limit: usize) -> World {
    World::with(bus(), &["--max-outbox-bytes", &limit.to_string()], 1).await
}

#[tokio::test]
async fn the_user_that_holds_most_is_closed_whatever_kind_of_bytes_it_holds() {
    type Fill = fn(&Session, usize);
    let fills: [Fill; 4] = [
        |session, bytes| session.outbox.push(frame(bytes)),
        |session, bytes| session.outbox.answer(&[frame(bytes)]),
        |session, bytes| session.outbox.keep(bytes),
        |session, bytes| session.outbox.hold(bytes),
    ];
    for fill in fills {
        let world = over(1_000_000).await;
        // Each honest client has more waiting than any one session of the greedy user.
        let honest = (10..20).map(|user| world.known(user)).collect::<Vec<_>>();
        honest.iter().for_each(|session| session.outbox.push(frame(30_000)));
        let greedy = (0..40).map(|_| world.known(1)).collect::<Vec<_>>();
        for session in &greedy {
            fill(session, 20_000);
        }
        eventually(|| greedy.iter().any(|session| is_closed(session))).await;
        tokio::time::sleep(2 * LOOK_AGAIN).await;
        assert!(honest.iter().all(|session| session.outbox.closing().is_none()));
        assert!(greedy.iter().any(|session| session.outbox.closing().is_none()), "no more than necessary");
    }
}

#[tokio::test]
async fn the_largest_of_a_users_sessions_goes_first() {
    let world = over(500_000).await;
    let sessions = [100_000, 300_000, 150_000].map(|bytes| {
        let session = world.known(1);
        session.outbox.push(frame(bytes));
        session
    });
    eventually(|| is_closed(&sessions[1])).await;
    assert_eq!(sessions.map(|session| is_closed(&session)), [false, true, false]);
}

/// A connection that only remembers whether it was cut.
#[derive(Default)]
struct Connection(AtomicBool);

impl Cut for Connection {
    fn cut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn unread_answers_to_a_user_count_with_its_sessions() {
    let world = over(500_000).await;
    let [honest, greedy] = [2, 1].map(|user| {
        let session = world.known(user);
        session.outbox.push(frame(120_000));
        session
    });
    let connections = [100_000, 200_000, 50_000].map(|bytes| {
        let connection = Arc::<Connection>::default();
        let cut: Weak<dyn Cut> = Arc::downgrade(&connection) as _;
        let holder = greedy.outbox.share().holder().unwrap();
        (Held::of(world.edge.memory.clone(), holder, cut).with(bytes), connection)
    });
    let is_cut = |(_, connection): &(Held, Arc<Connection>)| connection.0.load(Ordering::SeqCst);
    eventually(|| is_cut(&connections[1])).await;
    assert_eq!(connections.each_ref().map(is_cut), [false, true, false]);
    assert_eq!([honest, greedy].map(|session| is_closed(&session)), [false; 2]);
}

#[tokio::test]
async fn clients_that_have_not_connected_are_one_user_for_each_address() {
    let world = over(200_000).await;
    let unknown = |last| {
        let session = Session::open(&world.edge, Transport::Polling { reading: false }, address(last), None).unwrap();
        session.outbox.push(frame(12_000));
        session
    };
    let (other, known) = (unknown(2), world.known(1));
    known.outbox.push(frame(60_000));
    let many = (0..12).map(|_| unknown(1)).collect::<Vec<_>>();
    eventually(|| many.iter().any(|session| is_closed(session))).await;
    assert_eq!([other, known].map(|session| is_closed(&session)), [false; 2]);
}

#[tokio::test]
async fn joins_go_on_while_another_holds_more_than_half() {
    let world = over(600_000).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.hears("40{").await;
    let greedy = world.known(1);
    greedy.outbox.push(frame(500_000));
    // At once: a client that waits looks again after a quarter of a second.
    client.emit(&format!("420[\"joinRoom\",\"{ROOM}\"]"));
    timeout(Duration::from_secs(2), client.hears("430[{\"ok\":true")).await.unwrap();
    let wait = async || timeout(Duration::from_millis(50), greedy.outbox.within_share("join")).await;
    assert!(wait().await.is_err(), "the other waits");
    greedy.outbox.take_some(9, usize::MAX);
    assert!(wait().await.is_ok());
}

#[tokio::test]
async fn sessions_that_have_not_connected_are_bounded() {
    let world = World::with(bus(), &["--max-pending-sessions", "3"], 1).await;
    let open = |last| Session::open(&world.edge, Transport::Polling { reading: false }, address(last), None).unwrap();
    let known = world.known(1);
    let honest = open(2);
    let flood = (0..50).map(|_| open(1)).collect::<Vec<_>>();
    assert_eq!((world.edge.registry.pending(), world.edge.registry.len()), (3, 4));
    assert_eq!([&known, &honest, &flood[47], &flood[48], &flood[49]].map(|session| is_closed(session)), [false, false, true, false, false]);
    // A session that connects makes room.
    let before = world.known(2);
    let after = open(1);
    assert_eq!((world.edge.registry.pending(), is_closed(&before), is_closed(&after)), (3, false, false));
    let unbounded = World::with(bus(), &["--max-pending-sessions", "0"], 1).await;
    let open = |_| Session::open(&unbounded.edge, Transport::Polling { reading: false }, address(1), None).unwrap();
    assert!((0..5000).map(open).all(|session| !is_closed(&session)));
}
