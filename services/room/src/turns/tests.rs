use std::pin::Pin;

use futures::future::BoxFuture;
use futures::poll;

use super::*;

type Search<'a> = BoxFuture<'a, Result<Turn>>;

fn caller() -> Caller {
    Some(Uuid::now_v7())
}

/// A search that has asked for its turn, and has it or waits.
async fn search(turns: &Turns, caller: Caller) -> (Option<Result<Turn>>, Search<'_>) {
    let mut search: Search = Box::pin(turns.take(caller));
    let answer = match poll!(Pin::new(&mut search)) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    };
    (answer, search)
}

async fn runs(turns: &Turns, caller: Caller) -> Turn {
    search(turns, caller).await.0.expect("there is a place").unwrap()
}

async fn waits(turns: &Turns, caller: Caller) -> Search<'_> {
    let (answer, search) = search(turns, caller).await;
    assert!(answer.is_none());
    search
}

/// Ends what runs and takes what waits, until nothing does; whose turn was when.
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
        assert!(!had.is_empty(), "nothing runs and something waits");
        had.iter().rev().for_each(|(at, _)| drop(waiting.remove(*at)));
    }
    order
}

#[tokio::test]
async fn a_user_leaves_a_place_to_others() {
    let turns = Turns::new(2);
    let (ada, bob) = (caller(), caller());
    let first = runs(&turns, ada).await;
    let mut second = waits(&turns, ada).await;
    let other = runs(&turns, bob).await;
    drop(other);
    assert!(poll!(&mut second).is_pending(), "the place stays free for others");
    drop(first);
    assert!(poll!(&mut second).is_ready());
}

#[tokio::test]
async fn users_take_turns_and_a_crowd_waits_behind_itself() {
    let turns = Turns::new(1);
    let (ada, bob, cleo) = (caller(), caller(), caller());
    let running = vec![runs(&turns, ada).await];
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(("ada", waits(&turns, ada).await));
    }
    waiting.extend([("bob", waits(&turns, bob).await), ("cleo", waits(&turns, cleo).await), ("bob", waits(&turns, bob).await)]);
    assert_eq!(order(running, waiting).await, ["ada", "bob", "cleo", "ada", "bob", "ada", "ada"]);
}

#[tokio::test]
async fn anonymous_callers_are_one() {
    let turns = Turns::new(2);
    let _running = runs(&turns, None).await;
    let _waiting = waits(&turns, None).await;
    runs(&turns, caller()).await;
}

#[tokio::test]
async fn a_few_of_one_user_wait() {
    let turns = Turns::new(2);
    let ada = caller();
    let _running = runs(&turns, ada).await;
    let mut waiting = Vec::new();
    for _ in 0..MOST_WAITING_OF_ONE {
        waiting.push(waits(&turns, ada).await);
    }
    let refused = search(&turns, ada).await.0.unwrap().err().unwrap();
    assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(AGAIN)));
    // Its room in the queue is free again once a caller has left.
    waiting.pop();
    waiting.push(waits(&turns, ada).await);
}

#[tokio::test]
async fn a_full_queue_refuses_the_newest_of_those_with_most() {
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
    // So it goes on until all have one. Then newcomers are refused.
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
async fn none_waits_for_long_and_what_is_given_up_frees_its_place() {
    let turns = Turns::new(1);
    let running = runs(&turns, caller()).await;
    let begun = tokio::time::Instant::now();
    let refused = turns.take(caller()).await.err().unwrap();
    assert_eq!((refused.code, begun.elapsed()), (Code::Unavailable, PATIENCE));

    // It has its turn and leaves without having seen it.
    let left = waits(&turns, caller()).await;
    let mut next = waits(&turns, caller()).await;
    drop(running);
    assert!(poll!(&mut next).is_pending());
    drop(left);
    assert!(poll!(&mut next).is_ready());
    let state = turns.0.state.lock();
    assert!(state.running.is_empty() && state.waiting.is_empty());
}
