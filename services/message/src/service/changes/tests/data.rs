//! Data of the app with messages: what a message and an edit may have, and from which format of the log on.

use super::*;

fn with_data(message: pb::NewEvent, data: &str) -> pb::NewEvent {
    pb::NewEvent { message_data: data.into(), ..message }
}

fn edit(message: &pb::Event, content: &str, data: &str) -> pb::NewEvent {
    let mut edit = change(message, pb::Op::Edit, content);
    let change = edit.change.as_mut().unwrap();
    (change.data, change.keep_content) = (Some(data.into()), content.is_empty());
    edit
}

#[tokio::test]
async fn data_is_checked() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    let of = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    for data in [of(4096), nested(64), r#"{ "b": 1.0, "]": "[\\\"[" }"#.into()] {
        let sent = fixture.send(with_data(message(room, "tea"), &data)).await.unwrap().0;
        assert_eq!((sent.message_data, sent.data), (data, String::new()));
    }
    for (data, code) in [
        (of(4097), "too_large"),
        (nested(65), "invalid_request"),
        ("[]".into(), "invalid_request"),
        ("{".into(), "invalid_request"),
    ] {
        assert_eq!(fixture.send(with_data(message(room, "tea"), &data)).await.unwrap_err().0, code, "{data}");
    }
    let first = fixture.send(message(room, "tea")).await.unwrap().0;
    let edited = fixture.send(edit(&first, "", r#"{"n":1}"#)).await.unwrap().0;
    let shown = edited.change.unwrap().message.unwrap();
    assert_eq!((&*shown.content, &*shown.message_data), ("tea", r#"{"n":1}"#));
    let mut alone = edit(&first, "", "{}");
    alone.change.as_mut().unwrap().data = None;
    assert_eq!(fixture.send(alone).await.unwrap_err().0, "invalid_request");
    let mut pin = edit(&first, "", "{}");
    pin.change.as_mut().unwrap().op = pb::Op::Pin.into();
    assert_eq!(fixture.send(pin).await.unwrap_err().0, "invalid_request");
}

#[tokio::test]
async fn details_of_room_events_are_no_data_of_messages() {
    let fixture = Fixture::new().await;
    let smuggled = pb::NewEvent { data: "[]".into(), ..message(Uuid::now_v7(), "tea") };
    let sent = fixture.send(smuggled).await.unwrap().0;
    assert_eq!((&*sent.message_data, &*sent.data), ("", ""));
}

#[tokio::test]
async fn data_comes_with_its_format() {
    let fixture = Fixture::of_format(1).await;
    let room = Uuid::now_v7();
    let first = fixture.send(message(room, "first")).await.unwrap().0;
    for new in [with_data(message(room, "tea"), "{}"), edit(&first, "", "{}")] {
        let refused = fixture.send(new).await.unwrap_err();
        assert!(refused.0 == "unavailable" && refused.1.contains("finish-upgrade"), "{refused:?}");
    }
    fixture.client.clone().rooms_opened(pb::RoomsOpenedRequest {}).await.unwrap();
    fixture.send(with_data(message(room, "tea"), "{}")).await.unwrap();
}
