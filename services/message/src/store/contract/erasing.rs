//! Events never change, except that the body of a message can be erased.

use super::*;

on_both!(events_are_append_only, events_are_deleted_only_after_their_room_was_closed, erased_event_keeps_its_sender);

/// Returns a statement that erases the event with this `seq` in each room.
fn erasure(fixture: &Fixture, seq: u64) -> String {
    match fixture {
        Fixture::Postgres(_) => format!("SELECT erase(partition, room_id, ARRAY[{seq}]::bigint[]) FROM room_heads"),
        Fixture::Sqlite(_) => format!(
            "UPDATE events SET body = json_object('sender_username', json_extract(body, '$.sender_username')) WHERE seq = {seq}"
        ),
    }
}

/// Appends a message with this content and a room event; returns the room.
async fn filled(store: &dyn Store, content: &str) -> Uuid {
    let room = Uuid::now_v7();
    let event = Body { sender_username: "ada".into(), event: "roomUpdated".into(), ..Body::default() };
    let event = EventData { kind: Kind::System, body: event, ..new_message(room, None, "") };
    append_new(store, &[new_message(room, None, content)]).await;
    append_new(store, &[event]).await;
    room
}

async fn events_are_append_only(fixture: Fixture) {
    let store = fixture.open().await;
    let room = filled(&*store, "x").await;
    let before = history(&*store, room).await;
    for statement in [
        "UPDATE events SET body = '{\"sender_username\":\"eve\"}'",
        "UPDATE events SET body = replace(body, 'x', 'y')",
        "UPDATE events SET created_at = created_at + 1",
        "UPDATE events SET target = 1, op = 1, body = '{\"sender_username\":\"ada\"}' WHERE seq = 1",
        "UPDATE events SET sender_id = id, body = '{\"sender_username\":\"ada\"}' WHERE seq = 1",
        "UPDATE events SET body = '{\"sender_username\":\"ada\"}' WHERE seq = 2",
        "DELETE FROM events",
    ] {
        let refused = fixture.try_execute(statement).await.expect_err(statement);
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    if let Fixture::Postgres(_) = &fixture {
        fixture.try_execute("TRUNCATE events").await.unwrap_err();
    }
    assert_eq!(history(&*store, room).await, before);
}

async fn events_are_deleted_only_after_their_room_was_closed(fixture: Fixture) {
    let store = fixture.open().await;
    let [open, closed] = [filled(&*store, "stays").await, filled(&*store, "goes").await];
    let closing = EventData { kind: Kind::System, closes_room: true, ..new_message(closed, None, "") };
    append_new(&*store, &[closing]).await;
    let rooms = "SELECT room_id FROM room_heads WHERE closed";
    fixture.execute(&format!("DELETE FROM events WHERE room_id IN ({rooms})")).await;
    fixture.try_execute("DELETE FROM events").await.unwrap_err();
    assert_eq!([history(&*store, open).await.len(), history(&*store, closed).await.len()], [2, 0]);
}

async fn erased_event_keeps_its_sender(fixture: Fixture) {
    let store = fixture.open().await;
    let room = Uuid::now_v7();
    // JSON functions of Postgres reject the escape of this character.
    let body = Body { sender_username: "ada \"\\\" é".into(), content: "a secret\0".into(), ..Body::default() };
    let message = EventData { body, ..new_message(room, Some("once"), "") };
    let first = append_new(&*store, std::slice::from_ref(&message)).await.remove(0);
    append_new(&*store, &[new_message(room, None, "stays")]).await;
    for _ in 0..2 {
        fixture.execute(&erasure(&fixture, 1)).await;
    }
    let events = history(&*store, room).await;
    let left = Body { sender_username: message.body.sender_username.clone(), ..Body::default() };
    let erased = EventData { body: left, ..message.clone() };
    assert_eq!(events[0], Event { data: Arc::new(erased), ..first.clone() });
    assert_eq!(events[1].data.body.content, "stays");
    // A repeat still finds the first event.
    let outcomes = append(&*store, &[message]).await;
    assert!(matches!(&outcomes[0], Ok(Outcome::Repeated(event)) if event.seq == first.seq), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn erase_returns_the_number_of_erased_events() {
    let fixture = Fixture::postgres().await;
    let store = fixture.open().await;
    let [room, other] = [filled(&*store, "x").await, filled(&*store, "y").await];
    let Fixture::Postgres(url) = &fixture else { unreachable!() };
    let client = connect(url).await;
    let erase = async |room: Uuid, seqs: &[i64]| {
        let partition = partition::of_room(room, PARTITIONS) as i32;
        let row = client.query_one("SELECT message.erase($1, $2, $3)", &[&partition, &room, &seqs]).await;
        row.unwrap().get::<_, i64>(0)
    };
    // The second event is a room event; the others do not exist.
    assert_eq!(erase(room, &[1, 2, 3, -1]).await, 1);
    assert_eq!(erase(room, &[1]).await, 0, "an event is erased once");
    assert_eq!(erase(room, &[]).await, 0);
    assert_eq!(erase(Uuid::now_v7(), &[1]).await, 0);
    assert_eq!(history(&*store, other).await[0].data.body.content, "y");
}
