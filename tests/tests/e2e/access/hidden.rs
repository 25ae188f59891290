//! A private room answers a stranger exactly as if it did not exist.

use confab_tests::form::{Form, content_type};

use super::*;

everywhere!(every_route_answers_as_for_an_unknown_room, every_event_answers_as_for_an_unknown_room);

/// Returns what a client can tell apart in an answer.
fn shown(answer: &Answer, room: &str) -> (u16, Vec<(String, String)>, String) {
    // The caller's own limits count down.
    let ignored = ["date", "x-request-id", "ratelimit"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let mut body = answer.body.clone();
    body["requestId"] = Value::Null;
    (answer.status, headers.collect(), body.to_string().replace(room, "ROOM"))
}

async fn every_route_answers_as_for_an_unknown_room(scene: Scene) {
    let file = scene.one.share(&scene.owner, Some(&scene.room), "secret.txt", b"secret").await.unwrap();
    let file = file["id"].as_str().unwrap().to_owned();
    let (unknown, no_file) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    let seq = scene.post(&scene.guest, "secret").await.expect(201).unwrap()["seq"].to_string();
    for path in ["/api/rooms/ROOM/members/GUEST", "/api/rooms/ROOM", "/api/files/FILE"] {
        fails(
            &scene
                .one
                .call(Method::DELETE, &filled(path, &scene, &scene.room, &file), Some(&scene.stranger), None)
                .await
                .unwrap(),
            404,
            "not_found",
        );
    }
    let mut cases = vec![];
    for path in [
        "/api/rooms/ROOM",
        "/api/rooms/ROOM?limit=1",
        "/api/rooms/ROOM/members",
        "/api/messages/ROOM",
        "/api/messages/ROOM?before=5",
        "/api/messages/ROOM?after=0",
        "/api/rooms/ROOM/messages",
        "/api/rooms/ROOM/messages?around=1",
        "/api/rooms/ROOM/messages?events=true",
        "/api/rooms/ROOM/messages/1",
        "/api/rooms/ROOM/messages/1/versions",
        "/api/rooms/ROOM/messages/1/reactions",
        "/api/rooms/ROOM/pins",
        "/api/rooms/ROOM/changes?after=0",
        "/api/rooms/ROOM/reads",
        "/api/search?q=secret&roomId=ROOM",
        "/api/search?q=!&roomId=ROOM",
        "/api/files?roomId=ROOM",
        "/api/files/FILE",
        "/api/files/FILE/link",
    ] {
        cases.push((Method::GET, path, None));
    }
    cases.extend([
        (Method::HEAD, "/api/files/FILE", None),
        (Method::PATCH, "/api/rooms/ROOM", Some(json!({"name": "mine"}))),
        (Method::PATCH, "/api/rooms/ROOM", Some(json!({"visibility": "public"}))),
        (Method::DELETE, "/api/rooms/ROOM", None),
        (Method::PUT, "/api/rooms/ROOM/members/me", Some(json!({}))),
        (Method::PUT, "/api/rooms/ROOM/members/me", Some(json!({"role": "owner"}))),
        (Method::PUT, "/api/rooms/ROOM/members/GUEST", Some(json!({}))),
        (Method::PUT, "/api/rooms/ROOM/members/@no-such-user-at-all", Some(json!({}))),
        (Method::DELETE, "/api/rooms/ROOM/members/me", None),
        (Method::DELETE, "/api/rooms/ROOM/members/GUEST", None),
        (Method::DELETE, "/api/files/FILE", None),
        (Method::PATCH, "/api/rooms/ROOM/messages/SEQ", Some(json!({"content": "x"}))),
        (Method::DELETE, "/api/rooms/ROOM/messages/SEQ", None),
        (Method::DELETE, "/api/rooms/ROOM/messages/SEQ?id=0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01", None),
        (Method::PUT, "/api/rooms/ROOM/messages/SEQ/pin", None),
        (Method::DELETE, "/api/rooms/ROOM/messages/SEQ/pin", None),
        (Method::PUT, "/api/rooms/ROOM/messages/SEQ/reactions/x", None),
        (Method::DELETE, "/api/rooms/ROOM/messages/SEQ/reactions/x", None),
        // Not the number of a message.
        (Method::DELETE, "/api/rooms/ROOM/messages/99999", None),
        (Method::POST, "/api/rooms/ROOM/messages", Some(json!({"content": "x"}))),
        (Method::POST, "/api/messages", Some(json!({"roomId": "ROOM", "content": "x"}))),
        (Method::POST, "/api/messages", Some(json!({"roomId": "ROOM", "content": "x", "fileIds": ["FILE"]}))),
    ]);
    for (method, path, body) in cases {
        let mut answers = Vec::new();
        for (room, file) in [(&scene.room, &file), (&unknown, &no_file)] {
            let body =
                body.as_ref().map(|body| serde_json::from_str(&filled(&body.to_string(), &scene, room, file)).unwrap());
            let path = filled(path, &scene, room, file).replace("SEQ", &seq);
            let answer = scene.other.call(method.clone(), &path, Some(&scene.stranger), body).await.unwrap();
            answers.push(shown(&answer, room));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert_eq!(answers[0].0, 404, "{method} {path}");
    }
    let mut answers = Vec::new();
    for room in [&scene.room, &unknown] {
        let form = Form::new().field("roomId", room).file("x.txt", "text/plain", b"x").into_body();
        let upload = scene.other.request(Method::POST, "/api/files/upload").header("content-type", content_type());
        let upload = upload.bearer_auth(&scene.stranger.token).body(form);
        answers.push(shown(&scene.other.send(upload).await.unwrap(), room));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 404);
    assert_eq!(scene.members().await.len(), 2, "nothing has changed");
}

fn filled(text: &str, scene: &Scene, room: &str, file: &str) -> String {
    text.replace("ROOM", room).replace("FILE", file).replace("GUEST", &scene.guest.id)
}

async fn every_event_answers_as_for_an_unknown_room(scene: Scene) {
    let mut socket = WebSocket::connect(&scene.other.url, &scene.stranger.token).await.unwrap();
    let unknown = uuid::Uuid::now_v7().to_string();
    let seq = scene.post(&scene.guest, "secret").await.expect(201).unwrap()["seq"].clone();
    for (event, argument) in [
        ("joinRoom", json!({"after": 0})),
        ("joinRoom", json!({"last": 5})),
        ("message", json!({"content": "x"})),
        ("edit", json!({"seq": seq, "content": "x"})),
        ("remove", json!({"seq": seq})),
        ("pin", json!({"seq": seq, "on": true})),
        ("react", json!({"seq": seq, "name": "x", "on": true})),
    ] {
        let mut acks = Vec::new();
        for room in [&scene.room, &unknown] {
            let mut argument = argument.clone();
            argument["roomId"] = json!(room);
            let ack = socket.emit(event, argument).await.unwrap();
            assert_eq!(ack["error"]["code"], "not_found", "{event}: {ack}");
            acks.push(ack.to_string().replace(room.as_str(), "ROOM"));
        }
        assert_eq!(acks[0], acks[1], "{event}");
    }
    // No event of the room reaches the stranger: the next event is that of another room.
    let public = scene.one.room(&scene.owner).await.unwrap();
    socket.emit("joinRoom", json!(public)).await.unwrap();
    assert_eq!(scene.post(&scene.owner, "secret").await.status, 201);
    scene.one.post("/api/messages", &scene.owner, json!({"roomId": public, "content": "open"})).await.unwrap();
    assert_eq!(socket.event("message").await.unwrap()["content"], "open");
    assert_eq!(socket.taken_events(), []);
}
