//! All reads show messages in their present state; only versions contain former texts.

use super::*;

at_both_ends!(
    reads_show_the_present_state,
    every_number_of_the_room_has_an_item,
    a_page_around_a_message_has_its_neighbours,
    versions_have_all_texts_until_the_deletion,
    an_edit_can_require_a_revision,
    a_repeat_is_answered_with_the_first_act,
    changed_messages_are_listed_in_pages,
    files_keep_their_message,
);

async fn reads_show_the_present_state(scene: Scene) {
    let (first, second) = (scene.say("tea").await, scene.say("coffee").await);
    let edited = scene.edit(&scene.author, first, "green tea").await;
    assert_eq!(edited.header("etag"), format!("\"{}\"", edited.body["revision"]));
    let edited = edited.expect(200).unwrap();
    assert_eq!((&edited["content"], &edited["seq"]), (&json!("green tea"), &json!(first)));
    assert!(edited["editedAt"].is_string() && edited["revision"].as_u64().unwrap() > second);
    let pinned = scene.pin(&scene.owner, second, true).await.expect(200).unwrap();
    assert_eq!((&pinned["pinned"], &pinned["editedAt"]), (&json!(true), &json!(null)));

    let path = format!("/api/messages/{}", scene.room);
    for page in [scene.path(""), scene.path("?after=0"), scene.path("?before=99"), path] {
        let page = scene.other.get(&page, &scene.reader).await.unwrap().expect(200).unwrap();
        let items = page["items"].as_array().unwrap();
        assert_eq!(items[items.len() - 2..], [edited.clone(), pinned.clone()]);
        assert_eq!(page["lastSeq"], pinned["revision"]);
    }
    let shown = scene.other.get(&format!("/api/rooms/{}", scene.room), &scene.reader).await.unwrap();
    let shown = shown.expect(200).unwrap();
    assert_eq!((&shown["lastSeq"], &shown["messages"]["lastSeq"]), (&pinned["revision"], &pinned["revision"]));
    assert_eq!(shown["messages"]["items"].as_array().unwrap().last(), Some(&pinned));
    let one = scene.call(&scene.other, Method::GET, &scene.reader, &format!("/{first}"), None).await;
    assert_eq!((one.header("etag"), one.status), (&*format!("\"{}\"", edited["revision"]), 200));
    assert_eq!(one.body, edited);
    let pins = scene.other.get(&format!("/api/rooms/{}/pins", scene.room), &scene.reader).await.unwrap();
    assert_eq!(pins.expect(200).unwrap()["items"], json!([pinned]));

    let deleted = scene.delete(&scene.author, second).await.expect(200).unwrap();
    let expected = [&deleted["content"], &deleted["deleted"], &deleted["pinned"], &deleted["deletedBy"]["id"]];
    assert_eq!(expected, [&json!(""), &json!(true), &json!(false), &json!(scene.author.id)]);
    assert_eq!(scene.history().await.last(), Some(&deleted));
    let pins = scene.one.get(&format!("/api/rooms/{}/pins", scene.room), &scene.reader).await.unwrap();
    assert_eq!(pins.expect(200).unwrap()["items"], json!([]));
}

async fn every_number_of_the_room_has_an_item(scene: Scene) {
    let seq = scene.say("tea").await;
    scene.edit(&scene.author, seq, "green tea").await.expect(200).unwrap();
    scene.pin(&scene.owner, seq, true).await.expect(200).unwrap();
    scene.pin(&scene.owner, seq, false).await.expect(200).unwrap();
    scene.delete(&scene.owner, seq).await.expect(200).unwrap();
    let (mut items, mut rest) = (Vec::new(), "?events=true&limit=3&after=0".to_owned());
    loop {
        let page = scene.call(&scene.other, Method::GET, &scene.reader, &rest, None).await.expect(200).unwrap();
        items.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        rest = format!("?events=true&limit=3&cursor={cursor}");
    }
    let seqs = items.iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, (1..=seq + 4).collect::<Vec<_>>());
    let changes = items.iter().filter(|item| item["type"] == "change").collect::<Vec<_>>();
    let ops = changes.iter().map(|item| item["op"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(ops, ["edit", "pin", "unpin", "delete"]);
    assert!(changes.iter().all(|item| item["target"] == seq && item.get("content").is_none()));
    // A message is in its present state there, too.
    assert_eq!(items.iter().find(|item| item["seq"] == seq).unwrap()["deleted"], true);
    // A change is no message.
    let change = scene.call(&scene.other, Method::GET, &scene.reader, &format!("/{}", seq + 1), None).await;
    fails(&change, 404, "not_found");
}

async fn a_page_around_a_message_has_its_neighbours(scene: Scene) {
    let mut seqs = Vec::new();
    for number in 0..9 {
        seqs.push(scene.say(&number.to_string()).await);
        scene.edit(&scene.author, seqs[number], &format!("no. {number}")).await.expect(200).unwrap();
    }
    let around = async |seq: u64, limit: usize| {
        let rest = format!("?around={seq}&limit={limit}");
        let page = scene.call(&scene.other, Method::GET, &scene.reader, &rest, None).await.expect(200).unwrap();
        let items = page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap());
        (items.collect::<Vec<_>>(), page["nextCursor"].as_str().map(str::to_owned))
    };
    let (page, next) = around(seqs[4], 4).await;
    assert_eq!(page, seqs[2..6]);
    let rest = format!("?limit=2&cursor={}", next.unwrap());
    let page = scene.call(&scene.one, Method::GET, &scene.reader, &rest, None).await.expect(200).unwrap();
    assert_eq!(page["items"][0]["seq"], seqs[6]);
    assert_eq!(around(seqs[4], 1).await.0, [seqs[4]]);
    let (page, next) = around(seqs[8], 4).await;
    assert_eq!((page, next), (seqs[6..].to_vec(), None));
}

async fn versions_have_all_texts_until_the_deletion(scene: Scene) {
    let seq = scene.say("tea").await;
    for text in ["green tea", "green tea", "black tea"] {
        scene.edit(&scene.author, seq, text).await.expect(200).unwrap();
    }
    let versions =
        async |who: &Account| scene.call(&scene.other, Method::GET, who, &format!("/{seq}/versions"), None).await;
    let list = versions(&scene.author).await.expect(200).unwrap();
    let items = list["items"].as_array().unwrap();
    let texts = items.iter().map(|version| version["content"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(texts, ["tea", "green tea", "black tea"], "the same text is no version");
    let revisions = items.iter().map(|version| version["revision"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(revisions, [seq, seq + 1, seq + 2]);
    assert!(items.iter().all(|version| version["by"]["id"] == scene.author.id && version["at"].is_string()));
    assert_eq!(versions(&scene.owner).await.expect(200).unwrap(), list);
    fails(&versions(&scene.reader).await, 403, "forbidden");
    scene.delete(&scene.author, seq).await.expect(200).unwrap();
    assert_eq!(versions(&scene.author).await.expect(200).unwrap(), json!({"items": []}));
}

async fn an_edit_can_require_a_revision(scene: Scene) {
    let seq = scene.say("tea").await;
    let edit = async |tag: &str, content: &str| {
        let request = scene.other.request(Method::PATCH, &scene.path(&format!("/{seq}")));
        let request = request.bearer_auth(&scene.author.token).header("if-match", tag);
        scene.other.send(request.json(&json!({"content": content}))).await.unwrap()
    };
    let tag = |answer: &Answer| answer.header("etag").to_owned();
    let first = edit(&format!("\"{seq}\""), "green tea").await;
    assert_eq!(first.status, 200);
    fails(&edit(&format!("\"{seq}\""), "black tea").await, 412, "precondition_failed");
    // A pin is neither an edit nor a deletion.
    scene.pin(&scene.owner, seq, true).await.expect(200).unwrap();
    let second = edit(&tag(&first), "black tea").await;
    assert_eq!((second.status, &second.body["pinned"]), (200, &json!(true)));
    assert_eq!(edit("*", "white tea").await.status, 200);
    fails(&edit("W/\"1\"", "x").await, 400, "invalid_request");
    scene.delete(&scene.author, seq).await.expect(200).unwrap();
    // A conflict precedes the condition.
    fails(&edit(&tag(&second), "x").await, 409, "conflict");
}

async fn a_repeat_is_answered_with_the_first_act(scene: Scene) {
    let (seq, other) = (scene.say("tea").await, scene.say("coffee").await);
    let body = json!({"content": "green tea", "clientMessageId": "edit-1"});
    let mut answers = Vec::new();
    for api in [&scene.one, &scene.other, &scene.one] {
        let edit = scene.call(api, Method::PATCH, &scene.author, &format!("/{seq}"), Some(body.clone())).await;
        answers.push(edit.expect(200).unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(scene.last_seq().await, other + 1);
    // The id names one act on one message.
    let edit = scene.call(&scene.other, Method::PATCH, &scene.author, &format!("/{other}"), Some(body.clone())).await;
    fails(&edit, 409, "conflict");
    let delete = scene.one.request(Method::DELETE, &scene.path(&format!("/{seq}"))).bearer_auth(&scene.author.token);
    let delete = scene.one.send(delete.header("idempotency-key", "edit-1")).await.unwrap();
    fails(&delete, 409, "conflict");
    // An id beside the number must be that of the message.
    for (id, status) in [(uuid::Uuid::now_v7().to_string(), 409), (answers[0]["id"].as_str().unwrap().into(), 200)] {
        let answer = scene
            .call(&scene.one, Method::PATCH, &scene.author, &format!("/{seq}"), Some(json!({"content": "x", "id": id})))
            .await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    // A repeat is recognised before rights and conditions.
    scene.delete(&scene.author, seq).await.expect(200).unwrap();
    let again = scene.call(&scene.other, Method::PATCH, &scene.author, &format!("/{seq}"), Some(body)).await;
    assert_eq!(again.expect(200).unwrap()["deleted"], true);
    let second = scene.delete(&scene.author, seq).await.expect(200).unwrap();
    assert_eq!(second["deleted"], true);
    assert_eq!(scene.last_seq().await, second["revision"].as_u64().unwrap(), "a second deletion writes nothing");
    // The first send of a deleted message still has its answer.
    let message = json!({"content": "milk", "clientMessageId": "send-1"});
    let sent = scene.one.post(&scene.path(""), &scene.author, message.clone()).await.unwrap().expect(201).unwrap();
    let deleted = scene.delete(&scene.author, sent["seq"].as_u64().unwrap()).await.expect(200).unwrap();
    let again = scene.other.post(&scene.path(""), &scene.author, message).await.unwrap().expect(200).unwrap();
    assert_eq!(again, confab_tests::api::repeated(&deleted));
}

async fn changed_messages_are_listed_in_pages(scene: Scene) {
    let mut seqs = Vec::new();
    for number in 0..5 {
        seqs.push(scene.say(&number.to_string()).await);
    }
    let after = scene.last_seq().await;
    for seq in [seqs[3], seqs[0], seqs[4]] {
        scene.edit(&scene.author, seq, "changed").await.expect(200).unwrap();
    }
    let changes = async |query: &str| {
        let path = format!("/api/rooms/{}/changes?{query}", scene.room);
        scene.other.get(&path, &scene.reader).await.unwrap().expect(200).unwrap()
    };
    let mut listed = Vec::new();
    let mut query = format!("after={after}&limit=1");
    loop {
        let page = changes(&query).await;
        assert_eq!(page["lastSeq"], after + 3);
        listed.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("limit=1&cursor={cursor}");
    }
    let of = |items: &[Value]| items.iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(of(&listed), [seqs[3], seqs[0], seqs[4]], "in the order of the changes");
    let history = scene.history().await;
    assert!(listed.iter().all(|message| history.contains(message)));
    let within = changes(&format!("after={after}&from={}&upTo={}", seqs[1], seqs[3])).await;
    assert_eq!(of(within["items"].as_array().unwrap()), [seqs[3]]);
    assert_eq!(changes(&format!("after={}", after + 3)).await["items"], json!([]));
}

async fn files_keep_their_message(scene: Scene) {
    let file = scene.one.share(&scene.author, None, "tea.txt", b"green").await.unwrap();
    let message = json!({"content": "see", "fileIds": [file["id"]]});
    let sent = scene.one.post(&scene.path(""), &scene.author, message).await.unwrap().expect(201).unwrap();
    let seq = sent["seq"].as_u64().unwrap();
    let edited = scene.edit(&scene.author, seq, "").await.expect(200).unwrap();
    assert_eq!((&edited["content"], &edited["files"]), (&json!(""), &sent["files"]));
    let plain = scene.say("tea").await;
    fails(&scene.edit(&scene.author, plain, "").await, 400, "invalid_request");
    let deleted = scene.delete(&scene.author, seq).await.expect(200).unwrap();
    assert_eq!(deleted["files"], json!([]));
}
