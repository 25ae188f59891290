use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::File;
use confab_proto::message::v1::{Event, Kind};

use super::*;

#[test]
fn messages_match_the_contract() {
    let mut event = Event {
        id: "m".into(),
        room_id: "r".into(),
        seq: 7,
        kind: Kind::Message.into(),
        sender: Some(UserRef { id: "u".into(), username: "Zoë".into() }),
        content: "hi\n".into(),
        created_at_ms: 1_795_382_645_120,
        ..Event::default()
    };
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    assert_eq!(
        json,
        r#"{"id":"m","roomId":"r","seq":7,"type":"message","sender":{"id":"u","username":"Zoë"},"content":"hi\n","files":[],"clientMessageId":null,"createdAt":"2026-11-22T21:24:05.120Z"}"#
    );
    event.kind = Kind::File.into();
    event.files = vec![
        File {
            id: "f".into(),
            name: "a.png".into(),
            size: 5,
            content_type: "image/png".into(),
            sha256: "00".into(),
            uploaded_by: event.sender.clone(),
            ..File::default()
        },
        File { id: "g".into(), name: "b".into(), size: 7, deleted: true, ..File::default() },
    ];
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let present = r#"{"id":"f","name":"a.png","size":5,"contentType":"image/png","sha256":"00","url":"/api/files/f","roomId":null,"uploadedBy":{"id":"u","username":"Zoë"},"createdAt":"1970-01-01T00:00:00.000Z"}"#;
    let files = format!(
        r#""type":"file","sender":{{"id":"u","username":"Zoë"}},"content":"hi\n","files":[{present},{{"id":"g","name":"b","deleted":true}}]"#
    );
    assert!(json.contains(&files), "{json}");
    event.kind = Kind::System.into();
    event.event = "roomUpdated".into();
    event.data = r#"{"name":"Tea"}"#.into();
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let by = r#"{"id":"u","username":"Zoë"}"#;
    let left = format!(r#"{{"user":{{"id":"v","username":"bob"}},"role":"member","by":{by}}}"#);
    let member_left = Event { event: "memberLeft".into(), data: left.clone(), ..event.clone() };
    let text = serde_json::to_string(&MessageJson::from(&member_left)).unwrap();
    assert!(text.ends_with(&format!(r#""event":"memberLeft","data":{left}}}"#)), "{text}");
    assert!(
        json.contains(r#""type":"system""#) && json.ends_with(r#""event":"roomUpdated","data":{"name":"Tea"}}"#),
        "{json}"
    );
}
