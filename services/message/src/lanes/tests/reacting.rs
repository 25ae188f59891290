//! Reactions in a lane: the floor between two appends to one message, and what does not wait for it.

use super::*;
use crate::lanes::reacting::FLOOR;
use crate::store::{Change, Op, Reacted, Refusal};

/// Creates a reaction of a user to the message with this `seq`.
fn reaction(seq: u64, user: u128, name: &str, on: bool) -> Pending {
    let pending = pending(name, LONG);
    let user = Uuid::from_u128(user);
    let reacted = vec![Reacted { user, username: "ada".into(), name: name.into(), on }];
    let data = EventData::clone(&pending.data);
    let body = Body { reacted, ..data.body.clone() };
    let change = Some(Change::new(seq, Op::React));
    let data = EventData { kind: Kind::Change, sender: user, change, body, ..data };
    Pending { data: Arc::new(data), ..pending }
}

impl Fixture {
    /// Queues rows, and yields.
    async fn queue(&self, rows: Vec<Pending>) -> tokio::task::JoinHandle<Vec<Answer>> {
        let lanes = self.lanes.clone();
        let sent = tokio::spawn(async move { lanes.append(rows).await });
        tokio::task::yield_now().await;
        sent
    }
}

/// Returns the position of each reaction's event, 0 for one that changes nothing, and of each other event.
fn positions(answers: Vec<Answer>) -> Vec<u64> {
    let position = |answer: Answer| match answer.unwrap().1 {
        Outcome::Reacted(event, _) => event.message.map_or(0, |_| event.position),
        Outcome::Appended(event) => event.position,
        outcome => panic!("{outcome:?}"),
    };
    answers.into_iter().map(position).collect()
}

#[tokio::test(start_paused = true)]
async fn reactions_to_one_message_wait_for_each_other() {
    let fixture = Fixture::open().await;
    assert_eq!(positions(fixture.lanes.append(vec![pending("text", LONG), pending("other", LONG)]).await), [1, 2]);
    let begun = Instant::now();
    assert_eq!(positions(fixture.lanes.append(vec![reaction(1, 1, "a", true)]).await), [3]);
    let held = [
        fixture.queue(vec![reaction(1, 2, "b", true)]).await,
        fixture.queue(vec![reaction(1, 3, "b", true), reaction(1, 2, "b", false)]).await,
    ];
    // Neither messages nor reactions to other messages wait.
    let rows = vec![pending("later", LONG), reaction(2, 1, "c", true)];
    assert_eq!(positions(fixture.lanes.append(rows).await), [4, 5]);
    let [first, second] = held;
    assert_eq!(positions(first.await.unwrap()), [6]);
    assert!(begun.elapsed() >= FLOOR, "{:?}", begun.elapsed());
    assert_eq!(positions(second.await.unwrap()), [6, 6]);
    let batches = fixture.store.batches();
    assert_eq!(batches.last().unwrap(), &["b", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn acts_of_one_user_keep_their_order() {
    let fixture = Fixture::open().await;
    fixture.lanes.append(vec![pending("text", LONG)]).await;
    let mut sent = Vec::new();
    for n in 0..9 {
        sent.push(fixture.queue(vec![reaction(1, 1, "a", n % 2 == 0)]).await);
    }
    for sent in sent {
        assert!(positions(sent.await.unwrap())[0] > 0);
    }
    let (_, changed, _) = fixture.store.catch_up((7, Uuid::nil()), 1, 1, ALL, vec![].into()).await.unwrap();
    assert_eq!(changed.messages[0].state.as_ref().unwrap().reactions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_storm_costs_few_events() {
    let fixture = Fixture::open().await;
    fixture.lanes.append(vec![pending("text", LONG)]).await;
    let mut sent = Vec::new();
    for user in 0..1000 {
        sent.push(fixture.queue(vec![reaction(1, user, "a", true)]).await);
    }
    for sent in sent {
        assert!(positions(sent.await.unwrap())[0] > 0);
    }
    let head = fixture.store.room_heads(vec![(7, Uuid::nil())]).await.unwrap().heads[0].seq;
    assert!(head <= 1 + 8, "{head}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_lane_appends_what_is_held() {
    let fixture = Fixture::open().await;
    fixture.lanes.append(vec![pending("text", LONG), reaction(1, 1, "a", true)]).await;
    let held = fixture.queue(vec![reaction(1, 2, "a", true), reaction(9, 2, "a", true)]).await;
    fixture.lanes.finish().await;
    let answers = held.await.unwrap();
    assert!(matches!(&answers[0], Ok((_, Outcome::Reacted(event, _))) if event.seq == 3), "{answers:?}");
    assert!(matches!(&answers[1], Ok((_, Outcome::Refused(Refusal::NoMessage)))), "{answers:?}");
}

const ALL: Limit = Limit { events: 100, bytes: u32::MAX };
