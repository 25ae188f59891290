use serde_json::json;

use super::*;
use crate::testing::services::ROOM;

fn parse_text(name: &str, argument: &str) -> Result<(Uuid, Request)> {
    let argument: Box<RawValue> = serde_json::from_str(argument).unwrap();
    parse(name, Some(&argument), &[])
}

#[test]
fn valid_payloads_are_accepted_and_others_rejected() {
    assert!(matches!(parse_text("leaveRoom", &format!("{ROOM:?}")), Ok((_, Request::Leave))));
    assert!(matches!(parse_text("leaveRoom", &format!(r#"{{"roomId":{ROOM:?}}}"#)), Ok((_, Request::Leave))));
    let message = format!(r#"{{"roomId":{ROOM:?},"content":"hi","seq":9,"future":[]}}"#);
    assert!(matches!(parse_text("message", &message), Ok((_, Request::Send(m))) if m.content == "hi"));
    for on in [true, false] {
        let typing = format!(r#"{{"roomId":{ROOM:?},"on":{on}}}"#);
        assert!(matches!(parse_text("typing", &typing), Ok((_, Request::Typing(is_on))) if is_on == on));
    }
    let binary = format!(r#"{{"roomId":{ROOM:?},"content":{{"_placeholder":true,"num":0}}}}"#);
    for (name, bad) in [
        ("message", "null"),
        ("message", "{}"),
        ("message", "[]"),
        ("message", &*binary),
        ("typing", &*format!(r#"{{"roomId":{ROOM:?}}}"#)),
        ("typing", r#"{"roomId":"x","on":true}"#),
        ("leaveRoom", "7"),
        ("joinRoom", "null"),
        ("joinRoom", r#""x""#),
    ] {
        assert_eq!(parse_text(name, bad).err().unwrap().code, Code::InvalidRequest, "{name} {bad}");
    }
    assert_eq!(parse("nonsense", None, &[]).err().unwrap().code, Code::NotFound);
    assert_eq!(parse("message", None, &[]).err().unwrap().code, Code::InvalidRequest);
}

fn parse_change(name: &str, rest: &str) -> Result<NewChange> {
    match parse_text(name, &format!(r#"{{"roomId":{ROOM:?},"seq":5{rest}}}"#))? {
        (room, request @ Request::Change(_)) if !request.is_send() || request.name() != name => panic!("{room}"),
        (_, Request::Change(change)) => Ok(change),
        _ => panic!("{name} is a change"),
    }
}

#[test]
fn changes_of_messages_are_parsed() {
    let edit = parse_change("edit", r#","content":"","id":"x","clientMessageId":"c","unknown":[]"#).unwrap();
    assert_eq!((edit.target, edit.op, &*edit.content, edit.room.to_string()), (5, Op::Edit, "", ROOM.to_owned()));
    assert_eq!((edit.target_id.as_deref(), edit.client_message_id.as_deref()), (Some("x"), Some("c")));
    let edit = parse_change("edit", r#","data":{ "b": 1.0, "a": [] }"#).unwrap();
    assert_eq!((edit.keeps_text, edit.data.as_deref()), (true, Some(r#"{ "b": 1.0, "a": [] }"#)));
    let remove = parse_change("remove", r#","content":"x","clientMessageId":"c""#).unwrap();
    assert_eq!((remove.op, &*remove.content, remove.client_message_id.as_deref()), (Op::Delete, "", Some("c")));
    for (on, op) in [(true, Op::Pin), (false, Op::Unpin)] {
        assert_eq!(parse_change("pin", &format!(r#","on":{on},"clientMessageId":"c""#)).unwrap().op, op);
    }
    for (name, rest, detail) in [
        ("edit", "", "content must be given, or data"),
        ("edit", r#","content":5"#, "content must be a string"),
        ("remove", r#","id":5"#, "id must be a string"),
        ("pin", "", "on must be given"),
        ("pin", r#","on":1"#, "on must be a boolean"),
    ] {
        assert_eq!(parse_change(name, rest).unwrap_err().detail, detail);
    }
    let detail = |name, argument: &str| parse_text(name, argument).err().unwrap().detail;
    assert_eq!(detail("remove", &format!(r#"{{"roomId":{ROOM:?}}}"#)), "seq must be given");
    assert_eq!(detail("remove", &format!(r#"{{"roomId":{ROOM:?},"seq":-5}}"#)), "seq must be a whole number");
    assert_eq!(detail("edit", "[]"), "the payload must be { roomId, seq, content?, data?, id?, clientMessageId? }");
}

#[test]
fn a_new_token_belongs_to_no_room() {
    assert!(
        matches!(parse_text("auth", r#"{"token":"t"}"#), Ok((room, Request::Auth(t))) if room.is_nil() && t == "t")
    );
    for bad in ["null", "{}", r#""t""#, r#"{"token":7}"#] {
        assert_eq!(parse_text("auth", bad).err().unwrap().code, Code::InvalidRequest, "{bad}");
    }
}

#[test]
fn an_error_names_the_field() {
    let detail = |name, argument: &str| parse_text(name, argument).err().unwrap().detail;
    assert_eq!(detail("message", r#"{"roomId":"r","content":5}"#), "content must be a string");
    assert_eq!(detail("message", r#"{"content":"x"}"#), "roomId must be given");
    assert_eq!(detail("message", r#"{"roomId":"r","content":"x","fileIds":["a",1]}"#), "fileIds[1] must be a string");
    assert_eq!(detail("message", "[]"), "the payload must be { roomId, content, clientMessageId?, fileIds?, data? }");
    assert_eq!(detail("leaveRoom", r#"{"roomId":7}"#), "roomId must be a string");
    assert_eq!(detail("leaveRoom", "{}"), "roomId must be given");
    assert_eq!(detail("joinRoom", &format!(r#"{{"roomId":{ROOM:?},"after":"x"}}"#)), "after must be a whole number");
    assert_eq!(detail("joinRoom", r#""x""#), "roomId must be a UUID");
}

fn after(after: u64, from: u64) -> Wanted {
    Wanted::After { after, changed_from: Some(from) }
}

fn parse_join(rest: &str) -> Result<Join> {
    Join::parse(&format!(r#"{{"roomId":"{ROOM}"{rest}}}"#))
}

#[test]
fn joins_are_parsed() {
    assert_eq!(Join::parse(&format!("{ROOM:?}")).unwrap().history, Wanted::End);
    assert_eq!(parse_join(r#","after":0,"epoch":"e""#).unwrap().history, after(0, 1));
    assert_eq!(parse_join(r#","after":9,"from":4"#).unwrap().history, after(9, 4));
    assert_eq!(parse_join(r#","last":200,"unknown":1"#).unwrap().history, Wanted::Last(200));
    for bad in [
        r#","last":0"#,
        r#","last":201"#,
        r#","last":-1"#,
        r#","after":-1"#,
        r#","after":1.5"#,
        r#","after":1,"last":1"#,
        r#","from":1"#,
        r#","last":1,"from":1"#,
        r#","after":1,"from":-1"#,
        r#","epoch":7"#,
    ] {
        assert_eq!(parse_join(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
    }
}

fn parse_upload(change: serde_json::Value, attachments: &[Bytes]) -> Result<FileUpload> {
    let mut argument = json!({ "roomId": ROOM, "name": "a.txt", "data": { "_placeholder": true, "num": 0 } });
    argument.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    FileUpload::parse(&argument.to_string(), attachments)
}

#[test]
fn uploads_are_parsed() {
    let data = [Bytes::from_static(b"text"), Bytes::new()];
    let good =
        parse_upload(json!({ "contentType": "text/plain", "clientMessageId": "c", "unknown": [] }), &data).unwrap();
    assert_eq!(
        (good.room.to_string().as_str(), &*good.data, good.client_message_id.as_deref()),
        (ROOM, &b"text"[..], Some("c"))
    );
    assert_eq!(
        parse_upload(json!({ "data": { "_placeholder": true, "num": 1 }, "contentType": null }), &data).unwrap().data,
        ""
    );
    for (change, detail) in [
        (json!({ "data": "text" }), "data must be binary data"),
        (json!({ "data": null }), "data must be binary data"),
        (json!({ "data": {} }), "data must be binary data"),
        (json!({ "data": [] }), "data must be binary data"),
        (json!({ "data": [1, 2, 3] }), "data must be binary data"),
        (json!({ "data": [true, 0] }), "data must be binary data"),
        (json!({ "data": [{ "_placeholder": true, "num": 0 }] }), "data must be binary data"),
        (json!({ "data": { "type": "Buffer", "data": [1, 2] } }), "data must be binary data"),
        (json!({ "data": { "_placeholder": false, "num": 0 } }), "data must be binary data"),
        (json!({ "data": { "_placeholder": true, "num": 2 } }), "data must be binary data"),
        (json!({ "data": { "_placeholder": true, "num": -1 } }), "data.num must be a whole number"),
        (json!({ "roomId": "x" }), "roomId must be a UUID"),
        (json!({ "name": 5 }), "name must be a string"),
        (json!({ "clientMessageId": "" }), "clientMessageId must be 1 to 128 bytes"),
    ] {
        let error = parse_upload(change, &data).unwrap_err();
        assert_eq!((error.code, error.detail.as_str()), (Code::InvalidRequest, detail));
    }
    assert_eq!(FileUpload::parse("{}", &[]).unwrap_err().detail, "roomId must be given");
    assert_eq!(parse_upload(json!({}), &[vec![0; MAX_FILE].into()]).unwrap().data.len(), MAX_FILE);
    let large = parse_upload(json!({}), &[vec![0; MAX_FILE + 1].into()]).unwrap_err();
    assert!(large.code == Code::TooLarge && large.detail.contains("POST /api/files/upload"));
}
