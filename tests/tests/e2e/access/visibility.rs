//! A room becomes private, and public again.

use super::*;

everywhere!(a_room_becomes_private_at_a_definite_seq, a_private_room_becomes_public);

async fn change_visibility(scene: &Scene, visibility: &str) -> Value {
    let change = json!({"visibility": visibility});
    let answer = scene.one.call(Method::PATCH, &scene.path(""), Some(&scene.owner), Some(change)).await.unwrap();
    answer.expect(200).unwrap()
}

async fn a_room_becomes_private_at_a_definite_seq(scene: Scene) {
    let room = scene.one.room(&scene.owner).await.unwrap();
    let scene = Scene { room, ..scene };
    scene.put(&scene.guest, "me", json!({})).await.expect(201).unwrap();
    let (mut member, ack) = scene.joined(&scene.guest, json!({})).await;
    let (mut stranger, _) = scene.joined(&scene.stranger, json!({})).await;
    assert_eq!(scene.post(&scene.stranger, "while public").await.status, 201);
    for socket in [&mut member, &mut stranger] {
        assert_eq!(socket.event("message").await.unwrap()["content"], "while public");
    }
    let changed = change_visibility(&scene, "private").await;
    assert_eq!(changed["visibility"], "private");
    assert_eq!(scene.post(&scene.owner, "in private").await.status, 201);
    fails(&scene.post(&scene.stranger, "too late").await, 404, "not_found");
    // Both are closed at the transport, so that stock clients come back by themselves.
    for socket in [&mut member, &mut stranger] {
        while socket.fill().await.is_ok() {}
        let events = socket.taken_events();
        assert!(events.iter().all(|(_, event)| event["content"] != "in private"), "{events:?}");
    }
    let after = ack["lastSeq"].as_u64().unwrap();
    let (_, ack) = scene.joined(&scene.guest, json!({"after": after})).await;
    let events = ack["messages"].as_array().unwrap();
    assert_eq!(events.iter().map(|event| &event["content"]).collect::<Vec<_>>(), ["while public", "", "in private"]);
    assert_eq!((&events[1]["event"], &events[1]["data"]["visibility"]), (&json!("roomUpdated"), &json!("private")));
    let (_, ack) = scene.joined(&scene.stranger, json!({"after": after})).await;
    assert_eq!(ack["error"]["code"], "not_found");
}

async fn a_private_room_becomes_public(scene: Scene) {
    assert_eq!(scene.post(&scene.guest, "in private").await.status, 201);
    fails(&scene.other.get(&format!("/api/messages/{}", scene.room), &scene.stranger).await.unwrap(), 404, "not_found");
    change_visibility(&scene, "public").await;
    // All history is open.
    let (mut socket, ack) = scene.joined(&scene.stranger, json!({"after": 0})).await;
    let contents = ack["messages"].as_array().unwrap().iter().map(|event| event["content"].clone());
    assert_eq!(contents.collect::<Vec<_>>(), ["", "in private", ""]);
    assert_eq!(scene.post(&scene.stranger, "hello").await.status, 201);
    assert_eq!(socket.event("message").await.unwrap()["content"], "hello");
}
