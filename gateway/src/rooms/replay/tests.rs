use bytes::Bytes;
use confab_common::Code;
use confab_common::grpc::Services;
use confab_proto::message::v1::{ListChangesResponse, Op, ReadEventsResponse, State};
use prost::Message;
use serde_json::Value;

use super::*;
use crate::testing::fake;

const ROOM: Uuid = Uuid::from_u128(7);

/// A room with these events: a change is the `seq` of its message, a message is 0. `page` is the number of changed
/// messages on a page.
fn clients(events: &'static [u64], page: usize) -> Clients {
    let state = |seq: u64| {
        let last = events.iter().rposition(|target| *target == seq)?;
        Some(State { revision: last as u64 + 1, ..State::default() })
    };
    let message = move |seq: u64| Event { seq, state: state(seq), ..Event::default() };
    let answer = fake(move |method, body: Bytes| {
        let last_seq = events.len() as u64;
        let epoch = "e".to_owned();
        match method {
            "ReadEvents" => {
                let after = ReadEventsRequest::decode(body).unwrap().after.unwrap() as usize;
                let event = |(target, seq): (&u64, u64)| match *target {
                    0 => message(seq),
                    target => {
                        let change =
                            Some(Box::new(Change { target, op: Op::Edit.into(), message: None, ..Change::default() }));
                        Event { seq, kind: Kind::Change.into(), change, ..Event::default() }
                    }
                };
                let events = events[after..].iter().zip(after as u64 + 1..).map(event).collect();
                Ok(ReadEventsResponse { epoch, last_seq, events, more: false }.encode_to_vec())
            }
            "ListChanges" => {
                let list = ListChangesRequest::decode(body).unwrap();
                let mut changed = (list.from..=list.up_to).map(message).collect::<Vec<_>>();
                changed.retain(|message| message.state.as_ref().is_some_and(|state| state.revision > list.after));
                changed.sort_by_key(|message| message.state.as_ref().map(|state| state.revision));
                let more = changed.len() > page;
                changed.truncate(page);
                Ok(ListChangesResponse { epoch, last_seq, messages: changed, more }.encode_to_vec())
            }
            _ => Err(Error::internal("unexpected call")),
        }
    });
    Clients::new(Services { message: answer, ..Services::none() }, std::time::Duration::from_secs(5))
}

/// The numbers of the events, and the `seq` and the `revision` of their messages.
fn shown(replay: &Replay) -> Vec<(u64, u64, u64)> {
    let parsed = |(seq, frame): &(u64, Frame)| {
        let event: Value = serde_json::from_slice(frame.packet().strip_prefix(b"42").unwrap()).unwrap();
        let message = if event[0] == "messageUpdated" { &event[1]["message"] } else { &event[1] };
        (*seq, message["seq"].as_u64().unwrap(), message["revision"].as_u64().unwrap())
    };
    replay.frames.iter().map(parsed).collect()
}

#[tokio::test]
async fn each_change_has_its_message_in_the_present_state() {
    let clients = clients(&[0, 0, 1, 2, 0, 5, 1], 9);
    let replay = read(&clients, ROOM, 2, None).await.unwrap();
    assert_eq!((replay.last_seq, &*replay.epoch), (7, "e"));
    assert_eq!(shown(&replay), [(3, 1, 7), (4, 2, 4), (5, 5, 6), (6, 5, 6), (7, 1, 7)]);
}

#[tokio::test]
async fn a_page_of_changes_needs_several_pages_of_messages() {
    let clients = clients(&[0, 0, 0, 0, 1, 2, 3, 4], 2);
    let replay = read(&clients, ROOM, 4, None).await.unwrap();
    assert_eq!(shown(&replay), [(5, 1, 5), (6, 2, 6), (7, 3, 7), (8, 4, 8)]);
}

#[tokio::test]
async fn a_replay_reads_at_most_10_pages_of_messages() {
    // 30 messages, and an edit of each.
    let events = std::iter::repeat_n(0, 30).chain(1..=30).collect::<Vec<_>>().leak();
    assert_eq!(read(&clients(events, 2), ROOM, 30, None).await.err().unwrap().code, Code::Unavailable);
    assert_eq!(shown(&read(&clients(events, 3), ROOM, 30, None).await.unwrap()).len(), 30);
}
