//! A removal holds from its `seq` on, for events, posts, history, files and links.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

everywhere!(
    nothing_above_the_removal_reaches_the_user,
    reads_end_with_the_removal,
    a_member_who_returns_misses_nothing
);

async fn nothing_above_the_removal_reaches_the_user(scene: Scene) {
    let (mut first, ack) = scene.joined(&scene.guest, json!({"after": 0})).await;
    assert_eq!(ack["ok"], true, "{ack}");
    let (mut second, _) = scene.joined(&scene.guest, json!({})).await;
    let (mut witness, _) = scene.joined(&scene.owner, json!({})).await;
    // Both the owner and the guest post without a pause while the guest is removed.
    let done = Arc::new(AtomicBool::new(false));
    let talk = async |who: &Account, api: &Api| {
        let mut refused = Vec::new();
        while !done.load(Ordering::SeqCst) {
            let answer = api.post("/api/messages", who, json!({"roomId": scene.room, "content": "x"})).await.unwrap();
            if answer.status != 201 {
                refused.push(answer.status);
            }
        }
        refused
    };
    let removal = async {
        witness.event("message").await.unwrap();
        assert_eq!(scene.remove(&scene.owner, &scene.guest.id).await.status, 204);
        for _ in 0..20 {
            assert_eq!(scene.post(&scene.owner, "after the removal").await.status, 201);
        }
        done.store(true, Ordering::SeqCst);
    };
    let (owners, guests, ()) = tokio::join!(talk(&scene.owner, &scene.one), talk(&scene.guest, &scene.other), removal);
    assert!(owners.is_empty() && guests.iter().all(|status| *status == 404), "{owners:?} {guests:?}");
    let history = scene.history().await;
    let removal = history.iter().find(|event| event["event"] == "memberLeft").unwrap();
    let removed_at = removal["seq"].as_u64().unwrap();
    assert!(history.len() as u64 >= removed_at + 20);
    for event in &history {
        let is_guests = event["sender"]["id"] == json!(scene.guest.id);
        assert!(!is_guests || event["seq"].as_u64().unwrap() < removed_at, "{event}");
    }
    for socket in [&mut first, &mut second] {
        assert_eq!(socket.event("memberLeft").await.unwrap(), *removal);
        // The socket stays open; an acknowledgement shows that everything before it has been delivered.
        let ack = socket.emit("joinRoom", json!(scene.room)).await.unwrap();
        assert_eq!(ack["error"]["code"], "not_found");
        let later = socket.taken_events();
        let seqs = later.iter().map(|(_, event)| event["seq"].as_u64().unwrap());
        assert!(seqs.clone().all(|seq| seq < removed_at), "{removed_at}: {later:?}");
    }
}

async fn reads_end_with_the_removal(scene: Scene) {
    let file = scene.one.share(&scene.guest, Some(&scene.room), "mine.txt", b"mine").await.unwrap();
    let url = file["url"].as_str().unwrap();
    let link = scene.other.get(&format!("{url}/link"), &scene.guest).await.unwrap().expect(200).unwrap();
    let link = link["url"].as_str().unwrap();
    assert_eq!(scene.other.call(Method::GET, link, None, None).await.unwrap().status, 200);
    assert_eq!(scene.remove(&scene.owner, &scene.guest.id).await.status, 204);
    for path in [url, &format!("{url}/link"), &format!("/api/messages/{}", scene.room), &scene.path("")] {
        fails(&scene.other.get(path, &scene.guest).await.unwrap(), 404, "not_found");
    }
    let listed = scene.other.get("/api/files", &scene.guest).await.unwrap().expect(200).unwrap();
    assert_eq!(listed["items"], json!([]));
    fails(&scene.other.call(Method::GET, link, None, None).await.unwrap(), 401, "unauthorized");
    assert_eq!(scene.other.get(url, &scene.owner).await.unwrap().bytes, b"mine");
}

async fn a_member_who_returns_misses_nothing(scene: Scene) {
    let (mut socket, _) = scene.joined(&scene.guest, json!({})).await;
    scene.remove(&scene.owner, &scene.guest.id).await;
    let left = socket.event("memberLeft").await.unwrap();
    assert_eq!(scene.post(&scene.owner, "meanwhile").await.status, 201);
    scene.put(&scene.owner, &scene.guest.id, json!({})).await.expect(201).unwrap();
    // A new member of a private room sees all its history.
    let ack = socket.emit("joinRoom", json!({"roomId": scene.room, "after": left["seq"]})).await.unwrap();
    let contents = ack["messages"].as_array().unwrap().iter().map(|event| event["content"].clone());
    assert_eq!(contents.collect::<Vec<_>>(), ["meanwhile", ""]);
    assert_eq!(scene.post(&scene.guest, "back").await.status, 201);
    assert_eq!(socket.event("message").await.unwrap()["content"], "back");
}
