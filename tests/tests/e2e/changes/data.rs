//! Data of the app with messages: kept as it was sent, changed by edits, gone with the message.

use confab_tests::raw::{Client, WebSocket};

use super::*;

at_both_ends!(data_is_kept_as_it_was_sent, edits_change_text_data_or_both, invalid_data_is_refused);

/// The text of the field `data` of a message, as the server sends it.
async fn text_of(scene: &Scene, seq: u64) -> String {
    let answer = scene.other.get(&scene.path(&format!("/{seq}")), &scene.reader).await.unwrap();
    let text = String::from_utf8(answer.bytes).unwrap();
    text.rsplit_once(r#","data":"#).unwrap().1.strip_suffix('}').unwrap().to_owned()
}

async fn data_is_kept_as_it_was_sent(scene: Scene) {
    let data = r#"{ "b": 1.0, "a": {"z": null, "y": "\u00e9"}, "big": 12345678901234567890123 }"#;
    let body = format!(r#"{{"content": "tea", "data": {data}}}"#);
    let request = scene.one.request(Method::POST, &scene.path("")).bearer_auth(&scene.author.token);
    let request = request.header("content-type", "application/json").body(body);
    let sent = scene.one.send(request).await.unwrap();
    assert!(String::from_utf8_lossy(&sent.bytes).ends_with(&format!(r#","data":{data}}}"#)), "{sent:?}");
    let seq = sent.expect(201).unwrap()["seq"].as_u64().unwrap();
    assert_eq!(text_of(&scene, seq).await, data);
    let plain = scene.say("no data").await;
    assert_eq!(text_of(&scene, plain).await, "{}");
    // Over a socket, with the same event for all.
    let mut reader = WebSocket::connect(&scene.other.url, &scene.reader.token).await.unwrap();
    assert_eq!(reader.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let mut author = WebSocket::connect(&scene.one.url, &scene.author.token).await.unwrap();
    let message = json!({"roomId": scene.room, "content": "milk", "data": {"kind": "note"}});
    let ack = author.emit("message", message).await.unwrap();
    assert_eq!(ack["message"]["data"], json!({"kind": "note"}), "{ack}");
    assert_eq!(reader.event("message").await.unwrap(), ack["message"]);
}

async fn edits_change_text_data_or_both(scene: Scene) {
    let seq = scene.say("tea").await;
    let path = scene.path(&format!("/{seq}"));
    let edit = async |body: Value| {
        let edited = scene.one.call(Method::PATCH, &path, Some(&scene.author), Some(body)).await.unwrap();
        let edited = edited.expect(200).unwrap();
        (edited["content"].clone(), edited["data"].clone(), edited["revision"].as_u64().unwrap())
    };
    assert_eq!(edit(json!({"data": {"n": 1}})).await, (json!("tea"), json!({"n": 1}), seq + 1));
    assert_eq!(edit(json!({"content": "milk"})).await, (json!("milk"), json!({"n": 1}), seq + 2));
    assert_eq!(edit(json!({"content": "both", "data": {}})).await, (json!("both"), json!({}), seq + 3));
    assert_eq!(edit(json!({"content": "both", "data": {}})).await.2, seq + 3, "what changes nothing writes nothing");
    let mut author = WebSocket::connect(&scene.one.url, &scene.author.token).await.unwrap();
    let ack = author.emit("edit", json!({"roomId": scene.room, "seq": seq, "data": {"n": 2}})).await.unwrap();
    assert_eq!((&ack["message"]["content"], &ack["message"]["data"]), (&json!("both"), &json!({"n": 2})), "{ack}");
    let page = scene.call(&scene.other, Method::GET, &scene.reader, "?limit=1", None).await.expect(200).unwrap();
    assert_eq!(page["items"][0], ack["message"]);
    scene.delete(&scene.author, seq).await.expect(200).unwrap();
    assert_eq!(text_of(&scene, seq).await, "{}");
}

async fn invalid_data_is_refused(scene: Scene) {
    let of = |bytes: usize| json!({"a": "x".repeat(bytes - 8)});
    let post = async |data: Value| {
        scene.call(&scene.one, Method::POST, &scene.author, "", Some(json!({"content": "tea", "data": data}))).await
    };
    post(of(4096)).await.expect(201).unwrap();
    post(Value::Null).await.expect(201).unwrap();
    fails(&post(of(4097)).await, 413, "too_large");
    for bad in [json!([]), json!(5), json!("text")] {
        fails(&post(bad).await, 400, "invalid_request");
    }
    let seq = scene.say("tea").await;
    let edit =
        async |body: Value| scene.call(&scene.one, Method::PATCH, &scene.author, &format!("/{seq}"), Some(body)).await;
    fails(&edit(json!({})).await, 400, "invalid_request");
    fails(&edit(json!({"data": []})).await, 400, "invalid_request");
    fails(&edit(json!({"data": of(4097)})).await, 413, "too_large");
}
