//! `GET /api/rooms?mine=true`: the caller's rooms by their last activity.

use super::*;

everywhere!(own_rooms_are_listed_by_their_last_activity, own_rooms_are_listed_once_while_they_become_active);

/// Reads a page of the caller's rooms at the other end.
async fn page(scene: &Scene, who: &Account, query: &str) -> (Vec<String>, Option<String>) {
    let path = format!("/api/rooms?mine=true{query}");
    let page = scene.other.get(&path, who).await.unwrap().expect(200).unwrap();
    let ids = page["items"].as_array().unwrap().iter().map(|room| room["id"].as_str().unwrap().to_owned());
    (ids.collect(), page["nextCursor"].as_str().map(String::from))
}

/// Creates rooms, each with a message.
async fn rooms(scene: &Scene, owner: &Account, count: usize, last: &mut String) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..count {
        rooms.push(scene.one.room(owner).await.unwrap());
        say(scene, owner, rooms.last().unwrap(), last).await;
    }
    rooms
}

/// Posts messages until one has a later time than the last message before.
async fn say(scene: &Scene, who: &Account, room: &str, last: &mut String) {
    loop {
        let message = json!({"roomId": room, "content": "hello"});
        let message = scene.one.post("/api/messages", who, message).await.unwrap().expect(201).unwrap();
        let time = message["createdAt"].as_str().unwrap();
        if time > last.as_str() {
            *last = time.to_owned();
            return;
        }
    }
}

async fn own_rooms_are_listed_by_their_last_activity(scene: Scene) {
    let mut last = String::new();
    let own = rooms(&scene, &scene.guest, 2, &mut last).await;
    let listed = page(&scene, &scene.guest, "").await;
    assert_eq!(listed, (vec![own[1].clone(), own[0].clone(), scene.room.clone()], None));
    say(&scene, &scene.owner, &scene.room, &mut last).await;
    say(&scene, &scene.stranger, &own[0], &mut last).await;
    let expected = vec![own[0].clone(), scene.room.clone(), own[1].clone()];
    assert_eq!(page(&scene, &scene.guest, "").await, (expected, None));
    // Posting in a public room makes no member; joining does.
    assert_eq!(page(&scene, &scene.stranger, "").await, (vec![], None));
    let join = format!("/api/rooms/{}/members/me", own[1]);
    scene.one.call(Method::PUT, &join, Some(&scene.stranger), None).await.unwrap().expect(201).unwrap();
    assert_eq!(page(&scene, &scene.stranger, "").await.0, [own[1].clone()]);
    assert_eq!(page(&scene, &scene.guest, "").await.0[0], own[1], "the join is an event of the room");

    let room = scene.other.get("/api/rooms?mine=true", &scene.stranger).await.unwrap().expect(200).unwrap();
    let room = &room["items"][0];
    assert_eq!(room["role"], "member");
    assert!(room["lastSeq"].as_u64() >= Some(2), "the message and the join: {room}");
    let name = room["name"].as_str().unwrap().to_uppercase();
    assert_eq!(page(&scene, &scene.guest, &format!("&q={name}")).await, (vec![own[1].clone()], None));
    scene.remove(&scene.owner, &scene.guest.id).await.expect(204).unwrap();
    assert!(!page(&scene, &scene.guest, "").await.0.contains(&scene.room));

    for malformed in ["mine=1", "mine=", "mine=true&limit=0", "mine=true&cursor=x"] {
        let path = format!("/api/rooms?{malformed}");
        fails(&scene.one.get(&path, &scene.guest).await.unwrap(), 400, "invalid_request");
    }
    fails(&scene.one.call(Method::GET, "/api/rooms?mine=true", None, None).await.unwrap(), 401, "unauthorized");
}

async fn own_rooms_are_listed_once_while_they_become_active(scene: Scene) {
    let (user, mut last) = (&scene.stranger, String::new());
    let own = rooms(&scene, user, 7, &mut last).await;
    let (first, cursor) = page(&scene, user, "&limit=2").await;
    assert_eq!(first, [own[6].clone(), own[5].clone()]);
    // A room of this page, and rooms of later pages.
    for active in [6, 4, 0] {
        say(&scene, user, &own[active], &mut last).await;
    }
    let new = scene.one.room(user).await.unwrap();
    let (mut all, mut cursor) = (first, cursor);
    while let Some(next) = cursor {
        let (ids, next) = page(&scene, user, &format!("&limit=2&cursor={next}")).await;
        all.extend(ids);
        cursor = next;
    }
    all.sort();
    let mut expected = own.clone();
    expected.sort();
    assert_eq!(all, expected, "each room once, and none that is newer than the first page");
    let newest = page(&scene, user, "&limit=4").await.0;
    assert_eq!(newest, [new, own[0].clone(), own[4].clone(), own[6].clone()]);
}
