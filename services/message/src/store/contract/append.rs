//! Numbers, identities, closed rooms, and visibility.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;

use super::*;

on_both!(
    numbers_are_dense_under_concurrent_appends,
    repeat_is_answered_with_the_first_event,
    repeats_within_a_batch_become_one_event,
    concurrent_sends_become_one_event,
    closed_room_accepts_no_events,
    invalid_event_fails_alone,
    readers_never_see_gaps_that_fill_later,
);

async fn numbers_are_dense_under_concurrent_appends(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let rooms: Vec<Uuid> = (0..PARTITIONS - 1).flat_map(|partition| rooms_in(partition).take(2)).collect();
    let writers = (0..8).map(|writer| {
        let (store, rooms) = (replicas[writer % 2].clone(), rooms.clone());
        tokio::spawn(async move {
            for round in 0..12 {
                let batch: Vec<_> = (0..=round)
                    .map(|n| new_message(rooms[(writer + n) % rooms.len()], None, &format!("{writer} {round} {n}")))
                    .collect();
                let events = append_new(&*store, &batch).await;
                for (event, data) in events.iter().zip(&batch) {
                    assert_eq!(*event.data, *data);
                }
                // Within one room the batch keeps its order.
                assert!(events.iter().all(|a| {
                    events.iter().all(|b| a.data.room != b.data.room || (a.data.id < b.data.id) == (a.seq < b.seq))
                }));
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let store = &*replicas[0];
    let mut total = 0;
    for (partition, head) in store.heads().await.unwrap().heads {
        let page = store.read_log(partition, 0, ALL).await.unwrap();
        let positions: Vec<_> = page.events.iter().map(|event| event.position).collect();
        assert_eq!(positions, (1..=head).collect::<Vec<_>>());
        assert_eq!(page.head, head);
        // Commit order equals number order, both in the room and in the partition.
        for room in &rooms {
            let of_room: Vec<_> = page.events.iter().filter(|event| event.data.room == *room).cloned().collect();
            assert_eq!(seqs(&of_room), (1..=of_room.len() as u64).collect::<Vec<_>>());
            if !of_room.is_empty() {
                assert_eq!(history(store, *room).await, of_room);
            }
        }
        total += head;
    }
    assert_eq!(total, 8 * (1..=12).sum::<u64>());
}

async fn repeat_is_answered_with_the_first_event(fixture: Fixture) {
    let store = fixture.open().await;
    let room = Uuid::now_v7();
    let first =
        EventData { kind: Kind::File, ..new_message(room, Some("once"), "Привет, 世界 \u{1F375} \"\\\n") };
    let event = append_new(&*store, std::slice::from_ref(&first)).await.remove(0);
    let again = EventData { id: Uuid::now_v7(), body: Body::default(), ..first.clone() };
    let elsewhere = EventData { room: Uuid::from_u128(room.as_u128() + 1), ..first.clone() };
    let elsewhere = EventData { partition: partition::of_room(elsewhere.room, PARTITIONS), ..elsewhere };
    let other_sender = EventData { sender: Uuid::now_v7(), ..first.clone() };
    let outcomes = append(&*store, &[new_message(room, None, "second"), again, elsewhere, other_sender]).await;
    assert!(matches!(&outcomes[0], Ok(Outcome::Appended(event)) if event.seq == 2));
    assert_eq!(outcomes[1].as_ref().unwrap(), &Outcome::Repeated(event.clone()));
    assert!(matches!(&outcomes[2], Ok(Outcome::Appended(event)) if event.seq == 1));
    assert!(matches!(&outcomes[3], Ok(Outcome::Appended(event)) if event.seq == 3));
    assert_eq!(history(&*store, room).await[0], event);
}

async fn repeats_within_a_batch_become_one_event(fixture: Fixture) {
    let store = fixture.open().await;
    let one = new_message(Uuid::now_v7(), Some("x"), "one");
    let two = new_message(one.room, None, "two");
    let outcomes =
        append(&*store, &[one.clone(), two.clone(), EventData { id: Uuid::now_v7(), ..one.clone() }, two]).await;
    let Ok(Outcome::Appended(first)) = &outcomes[0] else { panic!("{outcomes:?}") };
    let Ok(Outcome::Appended(second)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(outcomes[2].as_ref().unwrap(), &Outcome::Repeated(first.clone()));
    assert_eq!(outcomes[3].as_ref().unwrap(), &Outcome::Repeated(second.clone()));
    assert_eq!(history(&*store, one.room).await, [first.clone(), second.clone()]);
}

async fn concurrent_sends_become_one_event(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let room = Uuid::now_v7();
    for n in 0..20 {
        let first = new_message(room, Some(&format!("send {n}")), "hello");
        let sends = (0..3).map(|i| {
            let (store, data) = (replicas[i % 2].clone(), EventData { id: Uuid::now_v7(), ..first.clone() });
            tokio::spawn(async move { append(&*store, &[data]).await.remove(0).unwrap() })
        });
        let outcomes: Vec<_> = join_all(sends).await.into_iter().map(|outcome| outcome.unwrap()).collect();
        let appended = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Appended(_))).count();
        assert_eq!(appended, 1);
        let mut events = outcomes.into_iter().map(|outcome| match outcome {
            Outcome::Appended(event) | Outcome::Repeated(event) => event,
            outcome => panic!("{outcome:?}"),
        });
        let event = events.next().unwrap();
        assert!(events.all(|other| other == event));
        assert_eq!(event.seq, n + 1);
    }
    assert_eq!(history(&*replicas[0], room).await.len(), 20);
}

async fn closed_room_accepts_no_events(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (room, neighbour) = (rooms.next().unwrap(), rooms.next().unwrap());
    let early = new_message(room, Some("early"), "early");
    append_new(&*store, std::slice::from_ref(&early)).await;
    let body = Body { event: "roomDeleted".into(), data: "{}".into(), ..Body::default() };
    let closing = EventData { kind: Kind::System, body, closes_room: true, ..new_message(room, None, "") };
    let batch = [
        new_message(room, None, "before"),
        closing.clone(),
        new_message(room, None, "after"),
        new_message(neighbour, None, "next door"),
        early,
    ];
    let outcomes = append(&*store, &batch).await;
    assert!(matches!(&outcomes[1], Ok(Outcome::Appended(event)) if event.seq == 3));
    assert_eq!(outcomes[2].as_ref().unwrap(), &Outcome::Hidden);
    assert!(matches!(&outcomes[3], Ok(Outcome::Appended(event)) if (event.seq, event.position) == (1, 4)));
    assert!(matches!(&outcomes[4], Ok(Outcome::Repeated(event)) if event.seq == 1));
    let outcomes =
        append(&*store, &[new_message(room, None, "later"), closing, new_message(neighbour, None, "still open")]).await;
    assert_eq!(outcomes[0].as_ref().unwrap(), &Outcome::Hidden);
    assert!(
        matches!(&outcomes[1], Ok(Outcome::Repeated(event)) if event.seq == 3 && event.data.body.event == "roomDeleted")
    );
    assert!(matches!(&outcomes[2], Ok(Outcome::Appended(event)) if event.seq == 2));
    assert_eq!(seqs(&history(&*store, room).await), [1, 2, 3]);
}

async fn invalid_event_fails_alone(fixture: Fixture) {
    let store = fixture.open().await;
    let room = Uuid::now_v7();
    // Only this room's second event is blocked.
    let (broken, partition) = (Uuid::now_v7(), 1);
    append_new(&*store, &[EventData { partition, ..new_message(broken, None, "fine") }]).await;
    fixture.execute("UPDATE room_heads SET seq = 0").await;
    let mut batch: Vec<_> = (0..7).map(|n| new_message(room, None, &n.to_string())).collect();
    batch.insert(4, EventData { partition, ..new_message(broken, None, "cannot be numbered") });
    let outcomes = append(&*store, &batch).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
    assert_eq!(outcomes[4].as_ref().unwrap_err().code, Code::Internal);
    let contents: Vec<_> = history(&*store, room).await.iter().map(|event| event.data.body.content.clone()).collect();
    assert_eq!(contents, ["0", "1", "2", "3", "4", "5", "6"]);
}

async fn readers_never_see_gaps_that_fill_later(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let rooms: Vec<_> = rooms_in(2).take(3).collect();
    let done = Arc::new(AtomicBool::new(false));
    let (store, finished) = (replicas[0].clone(), done.clone());
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            // Loaded before the read, so that the last read sees every event.
            let last = finished.load(Ordering::SeqCst);
            let page = store.read_log(2, seen, Limit { events: 50, bytes: 1 << 20 }).await.unwrap();
            for event in &page.events {
                assert_eq!(event.position, seen + 1, "a gap that may fill later");
                seen += 1;
            }
            assert!(page.head >= seen);
            if last && page.events.is_empty() {
                return seen;
            }
        }
    });
    let writers = (0..8).map(|writer| {
        let (store, rooms) = (replicas[writer % 2].clone(), rooms.clone());
        tokio::spawn(async move {
            for n in 0..30 {
                let batch: Vec<_> = (0..n % 4 + 1).map(|i| new_message(rooms[(n + i) % 3], None, "x")).collect();
                append_new(&*store, &batch).await;
            }
            (0..30).map(|n| n % 4 + 1).sum::<usize>() as u64
        })
    });
    let written: u64 = join_all(writers).await.into_iter().map(|writer| writer.unwrap()).sum();
    done.store(true, Ordering::SeqCst);
    assert_eq!(reader.await.unwrap(), written);
}
