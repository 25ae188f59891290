use super::*;
use crate::testing::identity;

fn event_of(change: impl FnOnce(&mut NewMessage)) -> Result<NewEvent> {
    let room_id = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01".into();
    let mut message = NewMessage { room_id, content: "hi".into(), client_message_id: None, file_ids: None, data: None };
    change(&mut message);
    message.into_event(&identity()).map(|(_, event)| event)
}

#[test]
fn a_valid_payload_becomes_an_event() {
    let event = event_of(|_| {}).unwrap();
    assert_eq!((event.content.as_str(), event.kind(), event.client_message_id), ("hi", Kind::Message, None));
    assert_eq!(event.sender, Some(identity().user));
    event_of(|d| d.content = "é".repeat(8192)).unwrap();
    event_of(|d| d.client_message_id = Some("x".repeat(128))).unwrap();
    event_of(|d| d.file_ids = Some(vec![])).unwrap();
    let ids = (1..=10).map(Uuid::from_u128).collect::<Vec<_>>();
    let event =
        event_of(|d| (d.content, d.file_ids) = (String::new(), Some(ids.iter().map(Uuid::to_string).collect())))
            .unwrap();
    assert_eq!(event.file_ids, ids.iter().map(Uuid::to_string).collect::<Vec<_>>());
}

#[test]
fn each_invalid_field_is_named() {
    let field = |change: fn(&mut NewMessage)| event_of(change).unwrap_err().fields[0].field.clone();
    assert_eq!(field(|d| d.room_id = "r".into()), "roomId");
    assert_eq!(field(|d| d.content.clear()), "content");
    assert_eq!(field(|d| d.content = "a\0".into()), "content");
    assert_eq!(field(|d| d.client_message_id = Some(String::new())), "clientMessageId");
    assert_eq!(field(|d| d.client_message_id = Some("x".repeat(129))), "clientMessageId");
    assert_eq!(field(|d| d.client_message_id = Some("a\0".into())), "clientMessageId");
    assert_eq!(field(|d| (d.content, d.file_ids) = (String::new(), Some(vec![]))), "content");
    assert_eq!(field(|d| d.file_ids = Some(vec![Uuid::nil().to_string(), "f".into()])), "fileIds[1]");
    assert_eq!(field(|d| d.file_ids = Some(vec![Uuid::nil().to_string(); 2])), "fileIds[1]");
    assert_eq!(field(|d| d.file_ids = Some((0..11).map(|n| Uuid::from_u128(n).to_string()).collect())), "fileIds");
    assert_eq!(event_of(|d| d.content = "a".repeat(16_385)).unwrap_err().code, Code::TooLarge);
}

#[test]
fn data_is_kept_as_it_was_sent() {
    let raw = |text: &str| Some(serde_json::from_str(text).unwrap());
    let text = r#"{ "b": 1.0, "a": {"\u0061": null} }"#;
    assert_eq!(event_of(|d| d.data = raw(text)).unwrap().message_data, text);
    assert_eq!(event_of(|_| {}).unwrap().message_data, "");
    let of = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    event_of(|d| d.data = raw(&of(4096))).unwrap();
    assert_eq!(event_of(|d| d.data = raw(&of(4097))).unwrap_err().code, Code::TooLarge);
    for bad in ["[]", "5", r#""text""#, &format!(r#"{{"a":{}{}}}"#, "[".repeat(64), "]".repeat(64))] {
        let error = event_of(|d| d.data = raw(bad)).unwrap_err();
        assert_eq!((error.code, &*error.fields[0].field), (Code::InvalidRequest, "data"), "{bad}");
    }
}
