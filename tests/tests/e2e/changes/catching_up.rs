//! A client that was away is right again after one `joinRoom` with `after`.

use confab_tests::raw::{Client, WebSocket};

use super::*;

at_both_ends!(
    a_client_that_was_away_is_right_after_one_join,
    more_changes_than_fit_are_read_over_http,
    a_restored_log_has_no_changed_messages,
);

async fn connect(scene: &Scene) -> WebSocket {
    WebSocket::connect(&scene.other.url, &scene.reader.token).await.unwrap()
}

/// Joins the room with these fields.
async fn join(scene: &Scene, socket: &mut WebSocket, mut argument: Value) -> Value {
    argument["roomId"] = json!(scene.room);
    let ack = socket.emit("joinRoom", argument).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    ack
}

async fn a_client_that_was_away_is_right_after_one_join(scene: Scene) {
    let mut seqs = Vec::new();
    for text in ["tea", "coffee", "milk", "sugar"] {
        seqs.push(scene.say(text).await);
    }
    let mut socket = connect(&scene).await;
    let (mut held, ack) = (Held::default(), join(&scene, &mut socket, json!({"last": 200})).await);
    assert_eq!((&ack["changed"], &ack["changedComplete"]), (&json!([]), &json!(true)));
    held.catch_up(&ack);
    let edited = scene.edit(&scene.author, seqs[3], "honey").await.expect(200).unwrap();
    held.receive("messageUpdated", &socket.event("messageUpdated").await.unwrap());
    assert_eq!(held.seq, edited["revision"].as_u64().unwrap());
    drop(socket);

    scene.edit(&scene.author, seqs[0], "green tea").await.expect(200).unwrap();
    scene.delete(&scene.owner, seqs[1]).await.expect(200).unwrap();
    let new = scene.say("lemon").await;
    scene.edit(&scene.author, new, "lime").await.expect(200).unwrap();
    scene.pin(&scene.owner, seqs[0], true).await.expect(200).unwrap();
    // The highest number that the client has received is that of a change.
    let mut socket = connect(&scene).await;
    let after = json!({"after": held.seq, "epoch": ack["epoch"]});
    let ack = join(&scene, &mut socket, after.clone()).await;
    let states = [&ack["complete"], &ack["changedComplete"], &ack["reset"]];
    assert_eq!(states, [&json!(true), &json!(true), &json!(false)]);
    let of = |list: &Value| list.as_array().unwrap().iter().map(|it| it["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((of(&ack["messages"]), of(&ack["changed"])), (vec![new], vec![seqs[1], seqs[0]]));
    held.catch_up(&ack);
    assert_eq!(held.list(), scene.history().await);
    // Later changes arrive live, with the next numbers.
    scene.edit(&scene.author, seqs[2], "cream").await.expect(200).unwrap();
    held.receive("messageUpdated", &socket.event("messageUpdated").await.unwrap());
    assert_eq!(held.list(), scene.history().await);
    // A client that holds only the newer messages asks for their changes only.
    let mut from = after;
    from["from"] = json!(seqs[1]);
    let ack = join(&scene, &mut socket, from).await;
    assert_eq!(of(&ack["changed"]), [seqs[1], seqs[2]]);
    // With nothing new, there is nothing to take.
    let ack = join(&scene, &mut socket, json!({"after": held.seq, "epoch": ack["epoch"]})).await;
    assert_eq!((&ack["messages"], &ack["changed"], &ack["changedComplete"]), (&json!([]), &json!([]), &json!(true)));
}

async fn more_changes_than_fit_are_read_over_http(scene: Scene) {
    let mut held = Held::default();
    let mut socket = connect(&scene).await;
    for _ in 0..30 {
        scene.say(&"x".repeat(16_000)).await;
    }
    held.add(&json!(scene.history().await));
    let (epoch, after) = (join(&scene, &mut socket, json!({})).await["epoch"].clone(), held.seq);
    drop(socket);
    let seqs = held.messages.values().filter(|it| it["type"] == "message").map(|it| it["seq"].as_u64().unwrap());
    for seq in seqs.collect::<Vec<_>>() {
        scene.edit(&scene.author, seq, &"y".repeat(16_000)).await.expect(200).unwrap();
    }
    let mut socket = connect(&scene).await;
    let ack = join(&scene, &mut socket, json!({"after": after, "epoch": epoch})).await;
    assert_eq!((&ack["complete"], &ack["changedComplete"]), (&json!(true), &json!(false)));
    assert!(ack.to_string().len() <= 260 * 1024 && !ack["changed"].as_array().unwrap().is_empty());
    let mut query = format!("after={after}&upTo={after}&limit=20");
    if let Some(last) = ack["changed"].as_array().unwrap().last() {
        query = format!("after={}&upTo={after}&limit=20", last["revision"]);
    }
    held.catch_up(&ack);
    loop {
        let path = format!("/api/rooms/{}/changes?{query}", scene.room);
        let page = scene.one.get(&path, &scene.reader).await.unwrap().expect(200).unwrap();
        page["items"].as_array().unwrap().iter().for_each(|message| held.replace(message));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("limit=20&cursor={cursor}");
    }
    assert_eq!(held.list(), scene.history().await);
}

async fn a_restored_log_has_no_changed_messages(scene: Scene) {
    let seq = scene.say("tea").await;
    scene.edit(&scene.author, seq, "green tea").await.expect(200).unwrap();
    let mut socket = connect(&scene).await;
    for argument in [json!({"after": 0, "epoch": uuid::Uuid::now_v7()}), json!({"after": 99_999})] {
        let ack = join(&scene, &mut socket, argument).await;
        assert_eq!((&ack["reset"], &ack["complete"]), (&json!(true), &json!(false)));
        assert_eq!(
            (&ack["messages"], &ack["changed"], &ack["changedComplete"]),
            (&json!([]), &json!([]), &json!(true))
        );
    }
    let mut argument = json!({"roomId": scene.room, "from": 1});
    let refused = socket.emit("joinRoom", argument.clone()).await.unwrap();
    assert_eq!(refused["error"]["code"], "invalid_request", "from goes together with after: {refused}");
    argument["after"] = json!(0);
    assert_eq!(socket.emit("joinRoom", argument).await.unwrap()["ok"], true);
}
