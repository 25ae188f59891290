use std::pin::Pin;

use futures::future::BoxFuture;
use futures::poll;

use super::*;

type Search<'a> = BoxFuture<'a, Result<Turn>>;

fn caller() -> Caller {
    Some(Uuid::now_v7())
}

/// A search that has requested its turn, and its state: running or waiting.
async fn search(turns: &Turns, caller: Caller) -> (Option<Result<Turn>>, Search<'_>) {
    let mut search: Search = Box::pin(turns.take(caller));
    let answer = match poll!(Pin::new(&mut search)) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    };
    (answer, search)
}

async fn runs(turns: &Turns, caller: Caller) -> Turn {
    search(turns, caller).await.0.expect("a permit is free").unwrap()
}

async fn waits(turns: &Turns, caller: Caller) -> Search<'_> {
    let (answer, search) = search(turns, caller).await;
    assert!(answer.is_none());
    search
}

/// Ends the running searches and starts the waiting ones until none is left. Returns the callers in the order of their
/// turns.
async fn order(running: Vec<Turn>, waiting: Vec<(&'static str, Search<'_>)>) -> Vec<&'static str> {
    let (mut order, mut waiting) = (Vec::new(), waiting);
    drop(running);
    while !waiting.is_empty() {
        let mut had = Vec::new();
        for (at, (name, search)) in waiting.iter_mut().enumerate() {
            if let std::task::Poll::Ready(turn) = poll!(search) {
                order.push(*name);
                had.push((at, turn.unwrap()));
            }
        }
        assert!(!had.is_empty(), "no search runs, but a search waits");
        had.iter().rev().for_each(|(at, _)| drop(waiting.remove(*at)));
    }
    order
}

#[tokio::test]
async fn one_user_cannot_take_all_permits() {
    let turns = Turns::new(2);
    let (ada, bob) = (caller(), caller());
    let first = runs(&turns, ada).await;
    let mut second = waits(&turns, ada).await;
    let other = runs(&turns, bob).await;
    drop(other);
    assert!(poll!(&mut second).is_pending(), "the permit stays free for other callers");
    drop(first);
    assert!(poll!(&mut second).is_ready());
}

#[tokio::test]
async fn users_take_turns() {
    let turns = Turns::new(1);
    let (ada, bob, cleo) = (caller(), caller(), caller());
    let running = vec![runs(&turns, ada).await];
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(("ada", waits(&turns, ada).await));
    }
    waiting.extend([
        ("bob", waits(&turns, bob).await),
        ("cleo", waits(&turns, cleo).await),
        ("bob", waits(&turns, bob).await),
    ]);
    assert_eq!(order(running, waiting).await, ["ada", "bob", "cleo", "ada", "bob", "ada", "ada"]);
}

#[tokio::test]
async fn anonymous_callers_share_one_turn() {
    let turns = Turns::new(2);
    let _running = runs(&turns, None).await;
    let _waiting = waits(&turns, None).await;
    runs(&turns, caller()).await;
}

#[tokio::test]
async fn waiting_searches_of_one_user_are_limited() {
    let turns = Turns::new(2);
    let ada = caller();
    let _running = runs(&turns, ada).await;
    let mut waiting = Vec::new();
    for _ in 0..MOST_WAITING_OF_ONE {
        waiting.push(waits(&turns, ada).await);
    }
    let refused = search(&turns, ada).await.0.unwrap().err().unwrap();
    assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(RETRY_AFTER)));
    // A dropped caller frees its place in the queue.
    waiting.pop();
    waiting.push(waits(&turns, ada).await);
}

#[tokio::test]
async fn full_queue_rejects_the_newest_of_the_busiest_user() {
    let turns = Turns::new(1);
    let _running = runs(&turns, caller()).await;
    let crowd = (0..MOST_WAITING / MOST_WAITING_OF_ONE).map(|_| caller()).collect::<Vec<_>>();
    let mut waiting = Vec::new();
    for user in crowd.iter().cycle().take(MOST_WAITING) {
        waiting.push(waits(&turns, *user).await);
    }
    let _newcomer = waits(&turns, caller()).await;
    let mut refused = Vec::new();
    for (at, search) in waiting.iter_mut().enumerate() {
        if let std::task::Poll::Ready(answer) = poll!(search) {
            assert_eq!(answer.err().unwrap().code, Code::Unavailable);
            refused.push(at);
        }
    }
    assert!(refused.len() == 1 && refused[0] >= MOST_WAITING - crowd.len(), "{refused:?}");
    // Until each caller has one search. Then new callers are rejected.
    let mut newcomers = Vec::new();
    let refused = loop {
        match search(&turns, caller()).await {
            (None, search) => newcomers.push(search),
            (answer, _) => break answer.unwrap(),
        }
    };
    assert!(refused.is_err());
    let state = turns.0.state.lock();
    let counts = state.waiting.iter().map(|(_, searches)| searches.iter().filter(|search| !search.is_closed()).count());
    assert!(counts.clone().all(|count| (1..=2).contains(&count)) && counts.sum::<usize>() == MOST_WAITING);
}

#[tokio::test(start_paused = true)]
async fn wait_is_bounded_and_dropped_callers_free_their_place() {
    let turns = Turns::new(1);
    let running = runs(&turns, caller()).await;
    let begun = tokio::time::Instant::now();
    let refused = turns.take(caller()).await.err().unwrap();
    assert_eq!((refused.code, begun.elapsed()), (Code::Unavailable, TURN_WAIT_LIMIT));

    // The caller gets its turn and is dropped before it sees it.
    let left = waits(&turns, caller()).await;
    let mut next = waits(&turns, caller()).await;
    drop(running);
    assert!(poll!(&mut next).is_pending());
    drop(left);
    assert!(poll!(&mut next).is_ready());
    let state = turns.0.state.lock();
    assert!(state.running.is_empty() && state.waiting.is_empty());
}
