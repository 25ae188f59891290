//! Data of the app with messages: it is kept as it was sent, edited apart from the text, and erased with it.

use super::changes::{append_one, appended, change, edit, open_with};
use super::*;

on_both!(
    data_is_kept_as_it_was_sent,
    an_edit_changes_the_text_the_data_or_both,
    an_edit_of_the_data_alone_keeps_the_text_of_its_version,
    data_of_a_deleted_message_is_erased,
    a_shared_file_has_no_data,
);

fn with_data(data: EventData, text: &str) -> EventData {
    EventData { body: Body { data: text.into(), ..data.body.clone() }, ..data }
}

/// Creates an edit by the author that keeps the text.
fn edit_data(message: &Event, text: &str) -> EventData {
    let data = with_data(edit(message, ""), text);
    EventData { change: data.change.map(|change| Change { keeps_text: true, ..change }), ..data }
}

/// Returns the present text and data of a room's first message.
async fn present(store: &dyn Store, room: Uuid) -> (String, String) {
    let body = history(store, room).await.remove(0).data.body.clone();
    (body.content, body.data)
}

const TEXT: &str = r#"{ "b":1.0, "a": "\u0000 \"content\":\"x\"", "b": 2e400}"#;

async fn data_is_kept_as_it_was_sent(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = appended(&*store, with_data(new_message(room, Some("once"), "tea"), TEXT)).await;
    assert_eq!(present(&*store, room).await, ("tea".into(), TEXT.into()));
    let repeated = append_one(&*store, EventData::clone(&message.data)).await;
    assert!(matches!(&repeated, Outcome::Repeated(event) if event.data.body.data == TEXT), "{repeated:?}");
    assert_eq!(message.data.first_format(), FORMAT);
    assert_eq!(new_message(room, None, "tea").first_format(), 0);
}

async fn an_edit_changes_the_text_the_data_or_both(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = appended(&*store, with_data(new_message(room, None, "tea \"é"), TEXT)).await;
    let unchanged = async |data: EventData| matches!(append_one(&*store, data).await, Outcome::Unchanged(_));
    assert!(unchanged(edit_data(&message, TEXT)).await);
    assert!(unchanged(with_data(edit(&message, "tea \"é"), TEXT)).await);
    appended(&*store, edit_data(&message, r#"{"n":1}"#)).await;
    assert_eq!(present(&*store, room).await, ("tea \"é".into(), r#"{"n":1}"#.into()));
    assert!(unchanged(edit_data(&message, r#"{"n":1}"#)).await);
    appended(&*store, edit(&message, "milk")).await;
    assert_eq!(present(&*store, room).await, ("milk".into(), r#"{"n":1}"#.into()));
    appended(&*store, with_data(edit(&message, "both"), r#"{"n":2}"#)).await;
    assert_eq!(present(&*store, room).await, ("both".into(), r#"{"n":2}"#.into()));
    // The text is the same, the data is not.
    appended(&*store, with_data(edit(&message, "both"), "{}")).await;
    assert_eq!(present(&*store, room).await, ("both".into(), "{}".into()));
    let event = history(&*store, room).await.remove(0);
    assert_eq!(event.state.map(|state| state.revision), Some(5));
    // A message without data has an empty object.
    let plain = appended(&*store, new_message(room, None, "plain")).await;
    assert!(unchanged(edit_data(&plain, "{}")).await);
    let since = |data: EventData, seq| {
        let change = data.change.map(|change| Change { unchanged_since: Some(seq), ..change });
        EventData { change, ..data }
    };
    let outcome = append_one(&*store, since(edit_data(&message, r#"{"n":3}"#), 4)).await;
    assert_eq!(outcome, Outcome::Refused(Refusal::Changed));
    appended(&*store, since(edit_data(&message, r#"{"n":3}"#), 5)).await;
}

async fn an_edit_of_the_data_alone_keeps_the_text_of_its_version(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    let first = "first \"\\ é";
    let message = appended(&*store, new_message(key.1, None, first)).await;
    appended(&*store, edit_data(&message, r#"{"n":1}"#)).await;
    appended(&*store, edit(&message, "second")).await;
    appended(&*store, edit_data(&message, r#"{"n":2}"#)).await;
    let (versions, _) = store.versions(key, 1, Readers::Moderator).await.unwrap();
    let texts = versions.versions.iter().map(|version| (version.revision, version.content.as_str()));
    assert_eq!(texts.collect::<Vec<_>>(), [(1, first), (2, first), (3, "second"), (4, "second")]);
}

async fn data_of_a_deleted_message_is_erased(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = appended(&*store, with_data(new_message(room, None, "tea"), r#"{"secret":1}"#)).await;
    appended(&*store, edit_data(&message, r#"{"secret":2}"#)).await;
    let deleted = appended(&*store, change(&message, message.data.sender, Op::Delete)).await;
    assert_eq!(deleted.message.unwrap().data.body.data, "");
    assert_eq!(present(&*store, room).await, (String::new(), String::new()));
    assert_eq!(append_one(&*store, edit_data(&message, "{}")).await, Outcome::Refused(Refusal::Deleted));
    assert_eq!(store.erase_deleted(10, 10).await.unwrap(), Erased { events: 2, more: false });
    let remains = match &fixture {
        Fixture::Postgres(_) => {
            "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM events WHERE body LIKE '%secret%')
                AND NOT EXISTS (SELECT FROM message_state WHERE data IS NOT NULL); END $$"
        }
        Fixture::Sqlite(_) => {
            "CREATE TEMP TABLE remaining (n INTEGER CHECK (n = 0));
            INSERT INTO remaining SELECT count(*) FROM events WHERE body LIKE '%secret%';
            INSERT INTO remaining SELECT count(*) FROM message_state WHERE data IS NOT NULL"
        }
    };
    fixture.execute(remains).await;
}

async fn a_shared_file_has_no_data(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let file = EventData { kind: Kind::File, ..new_message(room, None, "tea") };
    let file = appended(&*store, file).await;
    assert_eq!(append_one(&*store, edit_data(&file, "{}")).await, Outcome::Refused(Refusal::NoData));
    assert_eq!(append_one(&*store, with_data(edit(&file, "x"), TEXT)).await, Outcome::Refused(Refusal::NoData));
    appended(&*store, edit(&file, "milk")).await;
}

/// The statement with which a replica of the release before edits.
const EDIT: &str = r#"SELECT append_changes(ARRAY[partition], ARRAY[room_id], ARRAY[gen_random_uuid()], ARRAY[sender_id],
    ARRAY['c:old'], ARRAY['{"sender_username":"ada","content":"old"}'], 1, ARRAY[seq], ARRAY[1::smallint],
    ARRAY[NULL::uuid], ARRAY[NULL::bigint], ARRAY[false], ARRAY['old'], ARRAY['ada']) FROM events WHERE seq = 1"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_release_before_edits_messages() {
    let fixture = Fixture::postgres().await;
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    appended(&*store, with_data(new_message(room, None, "tea"), TEXT)).await;
    fixture.execute(EDIT).await;
    assert_eq!(present(&*store, room).await, ("old".into(), TEXT.into()));
}
