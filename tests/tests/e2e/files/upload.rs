//! Uploads by REST: fields in every order, and repeats.

use confab_tests::api::{repeated, unique};
use confab_tests::form::Form;
use serde_json::json;

use super::Scene;

everywhere!(
    fields_may_come_in_any_order,
    empty_file_is_accepted,
    repeat_returns_the_first_upload,
    three_concurrent_uploads_are_stored_once
);

async fn fields_may_come_in_any_order(scene: Scene) {
    let mut files = Vec::new();
    for with_room in [false, true] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let id = unique("upload");
            let bytes = format!("{with_room} {order:?} {id}").into_bytes();
            let form = order.into_iter().fold(Form::new(), |form, field| match field {
                0 => form.file("plain.txt", "text/plain", &bytes),
                1 if with_room => form.field("roomId", &scene.room),
                1 => form.field("unknown", "ignored"),
                _ => form.field("clientMessageId", &id),
            });
            let file = scene.one.upload(&scene.account, form).await.unwrap().expect(201).unwrap();
            scene.is_file(&file, with_room.then_some(&*scene.room), "plain.txt", "text/plain", &bytes);
            assert_eq!(scene.get(super::url(&file)).await.bytes, bytes);
            files.push((file, id));
        }
    }
    // Only uploads with a room are announced, each once.
    let history = scene.history().await;
    assert_eq!(history.len(), 6);
    for ((message, (file, id)), seq) in history.iter().zip(&files[6..]).zip(1..) {
        assert_eq!(message["seq"], seq);
        scene.is_share(message, file, Some(id));
    }
}

async fn empty_file_is_accepted(scene: Scene) {
    let file = scene.one.share(&scene.account, Some(&scene.room), "empty.txt", b"").await.unwrap();
    scene.is_file(&file, Some(&scene.room), "empty.txt", "application/octet-stream", b"");
    let answer = scene.get(super::url(&file)).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.bytes.len()), (200, "0", 0));
    scene.is_share(&scene.history().await[0], &file, None);
}

async fn repeat_returns_the_first_upload(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    for room in [Some(&*scene.room), None] {
        let id = unique("repeat");
        let form = |bytes: &str| {
            let form = room.map_or(Form::new(), |room| Form::new().field("roomId", room));
            form.field("clientMessageId", &id).file("first.txt", "text/plain", bytes.as_bytes())
        };
        let first = scene.one.upload(&scene.account, form("first")).await.unwrap().expect(201).unwrap();
        for bytes in ["first", "", &"something else, and more of it ".repeat(10_000)] {
            let again = scene.other.upload(&scene.account, form(bytes)).await.unwrap().expect(200).unwrap();
            assert_eq!(again, first);
        }
        // A `clientMessageId` after the file identifies the repeat too late to save its bytes, but not too late to
        // discard them.
        let late = Form::new().file("late.txt", "text/plain", b"late").field("clientMessageId", &id);
        let late = room.map_or(late.clone(), |room| late.field("roomId", room));
        assert_eq!(scene.other.upload(&scene.account, late).await.unwrap().expect(200).unwrap(), first);
        assert_eq!(scene.get(super::url(&first)).await.bytes, b"first");
        // Another user's upload with the same id is another upload.
        let other = scene.one.upload(&stranger, form("theirs")).await.unwrap().expect(201).unwrap();
        assert_ne!(other["id"], first["id"]);
    }
    let history = scene.history().await;
    assert_eq!(history.len(), 2);
    assert_eq!(history.iter().filter(|message| message["sender"]["id"] == *scene.account.id).count(), 1);
    // The room's log has the id as well: a message cannot be sent under it.
    let message = json!({"roomId": scene.room, "content": "not new", "clientMessageId": history[0]["clientMessageId"]});
    let sender = &scene.account;
    assert_eq!(
        scene.one.post("/api/messages", sender, message).await.unwrap().expect(200).unwrap(),
        repeated(&history[0])
    );
}

async fn three_concurrent_uploads_are_stored_once(scene: Scene) {
    for n in 0..10 {
        let id = unique("triple");
        let room = (n % 2 == 0).then_some(&*scene.room);
        let upload = async |api: &confab_tests::api::Api, bytes: String| {
            let form = room.map_or(Form::new(), |room| Form::new().field("roomId", room));
            let form = form.field("clientMessageId", &id).file("triple.txt", "text/plain", bytes.as_bytes());
            api.upload(&scene.account, form).await.unwrap()
        };
        let sent = [1, 2, 3].map(|which| format!("{n} {which}"));
        let [a, b, c] = sent.clone();
        let (a, b, c) = tokio::join!(upload(&scene.one, a), upload(&scene.other, b), upload(&scene.one, c));
        let mut statuses = [a.status, b.status, c.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 201], "{} {} {}", a.body, b.body, c.body);
        assert!(a.body == b.body && b.body == c.body, "{} {} {}", a.body, b.body, c.body);
        // The content is that of one of the uploads, and the file object describes it.
        let got = scene.get(super::url(&a.body)).await.bytes;
        assert!(sent.iter().any(|bytes| *bytes.as_bytes() == *got));
        scene.is_file(&a.body, room, "triple.txt", "text/plain", &got);
    }
    let history = scene.history().await;
    assert_eq!(
        history.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=5).collect::<Vec<_>>()
    );
    assert!(history.iter().all(|message| message["type"] == "file"));
}
