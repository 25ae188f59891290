//! Reads of history, of the log and of heads.

use super::*;

on_both!(
    history_pages_both_ways,
    pages_end_at_their_limits,
    log_is_read_from_a_position,
    heads_of_rooms,
    times_of_the_newest_events,
);

async fn history_pages_both_ways(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(3);
    let (room, neighbour) = (rooms.next().unwrap(), rooms.next().unwrap());
    let batch: Vec<_> = (0..25)
        .flat_map(|n| [new_message(room, None, &n.to_string()), new_message(neighbour, None, "noise")])
        .collect();
    append_new(&*store, &batch).await;
    let all = history(&*store, room).await;
    assert_eq!(seqs(&all), (1..=25).collect::<Vec<_>>());
    let page = async |window| {
        let page = list(&*store, (3, room), window, Limit { events: 10, bytes: 1 << 20 }).await;
        assert_eq!(page.head, 25);
        seqs(&page.events)
    };
    assert_eq!(page(Window::Latest).await, (16..=25).collect::<Vec<_>>());
    assert_eq!(page(Window::Before(16)).await, (6..=15).collect::<Vec<_>>());
    assert_eq!(page(Window::Before(6)).await, (1..=5).collect::<Vec<_>>());
    assert_eq!(page(Window::Before(1)).await, [0u64; 0]);
    assert_eq!(page(Window::Before(u64::MAX)).await, (16..=25).collect::<Vec<_>>());
    assert_eq!(page(Window::After(0)).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(page(Window::After(20)).await, (21..=25).collect::<Vec<_>>());
    assert_eq!(page(Window::After(u64::MAX)).await, [0u64; 0]);
    let empty = list(&*store, (3, rooms.next().unwrap()), Window::Latest, ALL).await;
    assert_eq!((empty.head, empty.events.len()), (0, 0));
    let head_alone = list(&*store, (3, room), Window::Latest, Limit { events: 0, bytes: 1 << 20 }).await;
    assert_eq!((head_alone.head, head_alone.events.len()), (25, 0));
}

async fn pages_end_at_their_limits(fixture: Fixture) {
    let store = fixture.open().await;
    let room = rooms_in(0).next().unwrap();
    let batch: Vec<_> = (0..10).map(|_| new_message(room, None, &"x".repeat(1000))).collect();
    append_new(&*store, &batch).await;
    let limit = |bytes| Limit { events: 100, bytes };
    for (bytes, count) in [(1, 1), (4500, 3), (1 << 20, 10)] {
        assert_eq!(store.read_log(0, 0, limit(bytes)).await.unwrap().events.len(), count);
        let oldest = list(&*store, (0, room), Window::After(0), limit(bytes)).await;
        assert_eq!(seqs(&oldest.events), (1..=count as u64).collect::<Vec<_>>());
        let newest = list(&*store, (0, room), Window::Latest, limit(bytes)).await;
        assert_eq!(seqs(&newest.events), (11 - count as u64..=10).collect::<Vec<_>>());
    }
}

async fn log_is_read_from_a_position(fixture: Fixture) {
    let store = fixture.open().await;
    let rooms: Vec<_> = rooms_in(1).take(3).collect();
    let batch: Vec<_> = (0..30).map(|n| new_message(rooms[n % 3], Some(&n.to_string()), "x")).collect();
    let events = append_new(&*store, &batch).await;
    let page = store.read_log(1, 7, Limit { events: 5, bytes: 1 << 20 }).await.unwrap();
    assert_eq!((page.head, &page.events[..]), (30, &events[7..12]));
    let end = store.read_log(1, 30, ALL).await.unwrap();
    assert_eq!((end.head, end.events.len()), (30, 0));
    assert_eq!(store.read_log(2, 0, ALL).await.unwrap().head, 0);
    assert_eq!(store.heads().await.unwrap().heads, [(0, 0), (1, 30), (2, 0), (3, 0)]);
}

async fn heads_of_rooms(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (room, deleted) = (rooms.next().unwrap(), rooms.next().unwrap());
    let closing = EventData { kind: Kind::System, closes_room: true, ..new_message(deleted, None, "") };
    append_new(&*store, &[new_message(room, None, "one"), new_message(room, None, "two"), closing]).await;
    let empty = rooms_in(2).next().unwrap();
    let heads = store.room_heads(vec![(2, empty), (1, room), (1, deleted)]).await.unwrap();
    let head = |room, seq, closed, messages| RoomHead { room, seq, closed, messages };
    assert_eq!(heads.heads, [head(empty, 0, false, 0), head(room, 2, false, 2), head(deleted, 1, true, 0)]);
    let none = store.room_heads(Vec::new()).await.unwrap();
    assert_eq!((none.epoch, none.heads.len()), (heads.epoch, 0));
}

async fn times_of_the_newest_events(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (busy, quiet, empty) = (rooms.next().unwrap(), rooms.next().unwrap(), rooms_in(2).next().unwrap());
    append_at(&*store, &[new_message(quiet, None, "x")], 1000).await;
    // Pairs of events share their millisecond.
    for number in 0..40 {
        append_at(&*store, &[new_message(busy, None, "x"), new_message(busy, None, "x")], 2000 + number * 10).await;
    }
    let asked = vec![((1, busy), 80), ((2, empty), 0), ((1, quiet), 1)];
    let times = async |until_ms| {
        let times = store.last_times(asked.clone(), until_ms).await.unwrap();
        assert_eq!(times.len(), 3);
        assert_eq!(times.iter().map(|times| times.newest).collect::<Vec<_>>(), [Some(2390), None, Some(1000)]);
        assert_eq!(times[1], LastTimes::default());
        (times[0].until, times[2].until)
    };
    for (until_ms, expected) in [
        (i64::MAX, (Some(2390), Some(1000))),
        (2390, (Some(2390), Some(1000))),
        (2389, (Some(2380), Some(1000))),
        (2200, (Some(2200), Some(1000))),
        (2199, (Some(2190), Some(1000))),
        (2009, (Some(2000), Some(1000))),
        (2000, (Some(2000), Some(1000))),
        (1999, (None, Some(1000))),
        (999, (None, None)),
        (i64::MIN, (None, None)),
    ] {
        assert_eq!(times(until_ms).await, expected, "{until_ms}");
    }
    // An older head: events after it do not count.
    assert_eq!(store.last_times(vec![((1, busy), 3)], i64::MAX).await.unwrap()[0].newest, Some(2010));
    assert_eq!(store.last_times(Vec::new(), 0).await.unwrap(), []);
}

async fn append_at(store: &dyn Store, batch: &[EventData], created_at_ms: i64) {
    open_rooms(store, batch).await;
    let batch = batch.iter().cloned().map(Arc::new).collect::<Vec<_>>();
    store.append(&batch, created_at_ms).await.unwrap();
}
