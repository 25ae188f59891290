mod private;

use confab_proto::message::v1::{Event, ListEventsResponse, State};
use serde_json::{Value, json};

use super::*;
use crate::chat::testing::{World, connect, partition};
use crate::testing::{bus, eventually};

const ROOM: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";

fn parse(rest: &str) -> Result<Join> {
    Join::parse(&format!(r#"{{"roomId":"{ROOM}"{rest}}}"#))
}

fn page(last_seq: u64, events: std::ops::Range<u64>, content: &str) -> Page {
    let more = events.end <= last_seq;
    let events = events.map(|seq| Event { seq, content: content.into(), ..Event::default() }).collect();
    ListEventsResponse { epoch: "e1".into(), last_seq, events, more, ..ListEventsResponse::default() }.into()
}

#[test]
fn an_answer_reports_complete_and_reset() {
    let room = Room::default();
    let summary = |rest: &str, page: &Page| {
        let answer = answer(&parse(rest).unwrap(), &room, None, page, Vec::new());
        (answer.messages.len(), answer.complete, answer.reset)
    };
    assert_eq!(summary("", &page(9, 10..10, "")), (0, true, false));
    assert_eq!(summary(r#","after":7"#, &page(9, 8..10, "x")), (2, true, false));
    assert_eq!(summary(r#","after":9"#, &page(9, 10..10, "")), (0, true, false));
    assert_eq!(summary(r#","after":0"#, &page(900, 1..201, "x")), (200, false, false));
    assert_eq!(summary(r#","after":0,"epoch":"e1""#, &page(2, 1..3, "x")), (2, true, false));
    assert_eq!(summary(r#","after":0,"epoch":"e0""#, &page(2, 1..3, "x")), (0, false, true));
    assert_eq!(summary(r#","after":10"#, &page(9, 10..10, "")), (0, false, true));
    // Escapes make the encoded form larger than the form in the log.
    let (count, complete, _) = summary(r#","after":0"#, &page(40, 1..41, &"\u{1}".repeat(16_000)));
    assert_eq!((count, complete), (2, false));
    assert_eq!(summary(r#","last":3"#, &page(40, 38..41, &"\u{1}".repeat(16_000))), (2, true, false));
}

#[test]
fn an_answer_has_the_changed_messages_after_the_new_ones() {
    let room = Room::default();
    let changed = |seq, revision, content: &str| {
        let state = Some(State { revision, ..State::default() });
        Event { seq, content: content.into(), state, ..Event::default() }
    };
    let page = |content: &str, more_changed| {
        let events = vec![Event { seq: 8, content: content.into(), ..Event::default() }];
        let changed = vec![changed(5, 9, content), changed(2, 10, content)];
        let page = ListEventsResponse { epoch: "e1".into(), last_seq: 10, events, ..ListEventsResponse::default() };
        Page::after(7, 1, ListEventsResponse { changed, more_changed, ..page })
    };
    let summary = |rest: &str, page: &Page| {
        let answer = answer(&parse(rest).unwrap(), &room, None, page, Vec::new());
        let seqs = answer.changed.iter().map(|json| serde_json::from_str::<Value>(json.get()).unwrap()["seq"].clone());
        (answer.messages.len(), answer.complete, seqs.collect::<Vec<_>>(), answer.changed_complete)
    };
    assert_eq!(summary(r#","after":7"#, &page("", false)), (1, true, vec![json!(5), json!(2)], true));
    assert_eq!(summary(r#","after":7,"from":3"#, &page("", false)), (1, true, vec![json!(5)], true));
    assert_eq!(summary(r#","after":7"#, &page("", true)), (1, true, vec![json!(5), json!(2)], false));
    assert_eq!(summary(r#","after":7,"epoch":"e0""#, &page("", false)), (0, false, vec![], true));
    assert_eq!(summary(r#","last":1"#, &page("", false)), (1, true, vec![], true));
    // All three together exceed the limit of 256 KiB.
    let large = page(&"\u{1}".repeat(16_000), false);
    assert_eq!(summary(r#","after":7"#, &large), (1, true, vec![json!(5)], false));
}

#[tokio::test]
async fn a_client_that_must_reconnect_receives_unavailable() {
    let world = World::new(bus()).await;
    let mut client = world.client();
    client.emit(&connect(serde_json::json!({ "recovery": true })));
    client.receives("42[\"session\"").await;
    let (chat, socket) = (&world.chat, &client.socket);
    let again = async |meanwhile: Option<Box<dyn FnOnce() + Send>>| {
        *world.log.meanwhile.lock() = meanwhile;
        join(chat, socket, None, parse("").unwrap(), Instant::now() + Duration::from_secs(5))
            .await
            .map_err(|error| error.code)
    };
    assert_eq!(again(None).await, Ok(()));
    socket.outbox.take_some(9, usize::MAX);
    let hub = world.chat.hub.clone();
    assert_eq!(again(Some(Box::new(move || hub.resync(partition())))).await, Err(Code::Unavailable));
    eventually(|| socket.outbox.closing().is_some()).await;
    assert!(socket.outbox.is_empty(), "no frame removes the room from the offset");
}

#[tokio::test]
async fn a_client_removed_during_a_join_receives_not_found() {
    let world = World::new(bus()).await;
    let client = world.member().await;
    let (hub, id) = (world.chat.hub.clone(), client.socket.id());
    *world.log.meanwhile.lock() = Some(Box::new(move || _ = hub.leave(ROOM.parse().unwrap(), id)));
    let joined =
        join(&world.chat, &client.socket, None, parse("").unwrap(), Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(joined.unwrap_err().code, Code::NotFound);
}
