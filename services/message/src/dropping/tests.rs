//! Files of deleted messages from the callers' view, with a scripted file service.

use std::sync::atomic::Ordering;

use confab_common::testing::eventually;
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1 as pb;
use uuid::Uuid;

use crate::testing::{Fixture, message};

/// Sends a message with files.
async fn sent(fixture: &Fixture, room: Uuid, sender: &UserRef, files: &[&str]) -> pb::Event {
    let file_ids = files.iter().map(|id| id.to_string()).collect();
    let event = pb::NewEvent { sender: Some(sender.clone()), file_ids, ..message(room, "look") };
    fixture.send(event).await.unwrap().0
}

async fn delete(fixture: &Fixture, message: &pb::Event) {
    let deletion = pb::NewEvent {
        kind: pb::Kind::Change.into(),
        sender: message.sender.clone(),
        content: String::new(),
        change: Some(pb::NewChange { target: message.seq, op: pb::Op::Delete.into(), ..Default::default() }),
        ..crate::testing::message(message.room_id.parse().unwrap(), "")
    };
    fixture.send(deletion).await.unwrap();
}

fn ada() -> UserRef {
    UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() }
}

#[tokio::test]
async fn a_file_is_deleted_with_its_last_message() {
    let (fixture, room, ada) = (Fixture::new().await, Uuid::now_v7(), ada());
    let [alone, both] = [0; 2].map(|_| fixture.files.upload(&ada, None).id);
    let first = sent(&fixture, room, &ada, &[&alone, &both]).await;
    let second = sent(&fixture, room, &ada, &[&both]).await;
    delete(&fixture, &first).await;
    eventually(|| !fixture.files.has(&alone)).await;
    assert!(fixture.files.has(&both));
    assert!(!fixture.history(room).await[1].files[0].deleted);
    delete(&fixture, &second).await;
    eventually(|| !fixture.files.has(&both)).await;
}

#[tokio::test]
async fn a_failing_file_service_only_delays_the_deletion() {
    let (fixture, room, ada) = (Fixture::new().await, Uuid::now_v7(), ada());
    let file = fixture.files.upload(&ada, None).id;
    let message = sent(&fixture, room, &ada, &[&file]).await;
    fixture.files.down.store(true, Ordering::SeqCst);
    let before = fixture.files.asked.load(Ordering::SeqCst);
    delete(&fixture, &message).await;
    eventually(|| fixture.files.asked.load(Ordering::SeqCst) > before).await;
    assert!(fixture.files.has(&file));
    fixture.files.down.store(false, Ordering::SeqCst);
    eventually(|| !fixture.files.has(&file)).await;
}
