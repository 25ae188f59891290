//! The erasure of deleted messages.

use super::changes::{append_one, appended, change, edit, open_with};
use super::*;

on_both!(nothing_of_a_deleted_message_remains, long_histories_are_erased_in_steps, replicas_erase_together);

/// The word that the texts contain.
const SECRET: &str = "Sekret";

impl Fixture {
    /// Returns how many rows of all tables contain the secret.
    async fn secrets(&self) -> i64 {
        let mut found = 0;
        match self {
            Self::Postgres(url) => {
                let client = connect(url).await;
                let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'message'";
                for table in client.query(tables, &[]).await.unwrap() {
                    let table = table.get::<_, String>(0);
                    let count = format!("SELECT count(*) FROM message.{table} t WHERE t::text LIKE '%{SECRET}%'");
                    found += client.query_one(&count, &[]).await.unwrap().get::<_, i64>(0);
                }
            }
            Self::Sqlite(path) => {
                let database = rusqlite::Connection::open(path).unwrap();
                let list = |sql: &str| {
                    let mut statement = database.prepare(sql).unwrap();
                    let rows = statement.query_map([], |row| row.get(0)).unwrap();
                    rows.collect::<rusqlite::Result<Vec<String>>>().unwrap()
                };
                for table in list("SELECT name FROM sqlite_schema WHERE type = 'table'") {
                    for column in list(&format!("SELECT name FROM pragma_table_info('{table}')")) {
                        let count = format!(
                            "SELECT count(*) FROM \"{table}\" WHERE CAST(\"{column}\" AS TEXT) LIKE '%{SECRET}%'"
                        );
                        found += database.query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap();
                    }
                }
            }
        }
        found
    }
}

async fn nothing_of_a_deleted_message_remains(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let key = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    assert_eq!(store.erase_deleted(100, 100).await.unwrap(), Erased::default());
    let kept = appended(&*store, EventData { sender: owner, ..new_message(key.1, None, "kept") }).await;
    let first = EventData { sender: owner, ..new_message(key.1, Some("once"), &format!("{SECRET} 1")) };
    let message = appended(&*store, first.clone()).await;
    appended(&*store, edit(&kept, "kept, edited")).await;
    appended(&*store, edit(&message, &format!("{SECRET} 2"))).await;
    appended(&*store, change(&message, owner, Op::Pin)).await;
    let last = edit(&message, &format!("{SECRET} 3"));
    appended(&*store, last.clone()).await;
    assert_eq!(store.erase_deleted(100, 100).await.unwrap(), Erased::default(), "nothing is deleted");
    assert!(fixture.secrets().await >= 4);
    let deleted = appended(&*store, change(&message, owner, Op::Delete)).await;
    let before = history(&*store, key.1).await;
    assert_eq!(store.erase_deleted(100, 100).await.unwrap(), Erased { events: 3, more: false });
    assert_eq!(store.erase_deleted(100, 100).await.unwrap(), Erased::default());
    assert_eq!(fixture.secrets().await, 0);
    assert_eq!(history(&*store, key.1).await, before);
    assert_eq!(before[0].data.body.content, "kept, edited");
    // The numbers stay, and repeats are answered.
    let (all, _) = store.read_events(key, Window::After(0), ALL, Readers::Moderator).await.unwrap();
    assert_eq!(seqs(&all.events), (1..=7).collect::<Vec<_>>());
    assert!(all.events.iter().all(|event| event.data.body.sender_username == "ada"));
    for (data, seq) in [(first, 2), (last, 6)] {
        assert!(matches!(append_one(&*store, data).await, Outcome::Repeated(event) if event.seq == seq));
    }
    let (versions, _) = store.versions(key, 2, Readers::Moderator).await.unwrap();
    assert_eq!(versions.versions, []);
    assert_eq!(append_one(&*store, edit(&message, "undo")).await, Outcome::Refused(Refusal::Deleted));
    assert_eq!(deleted.message.unwrap().data.body.content, "");
}

async fn long_histories_are_erased_in_steps(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    let text = |n: usize| format!("{SECRET} {n}");
    let messages = append_new(&*store, &[new_message(key.1, None, SECRET), new_message(key.1, None, SECRET)]).await;
    let edits = (0..25).map(|n| edit(&messages[0], &text(n))).collect::<Vec<_>>();
    append_opened(&*store, &edits).await;
    append_opened(
        &*store,
        &messages.iter().map(|message| change(message, message.data.sender, Op::Delete)).collect::<Vec<_>>(),
    )
    .await;
    let mut steps = Vec::new();
    loop {
        let erased = store.erase_deleted(1, 10).await.unwrap();
        steps.push(erased.events);
        if !erased.more {
            break;
        }
    }
    assert_eq!(steps, [11, 10, 5, 1]);
    assert_eq!(fixture.secrets().await, 0);
}

async fn replicas_erase_together(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let key = open_with(&*replicas[0], false, &[]).await;
    let messages =
        append_new(&*replicas[0], &(0..40).map(|_| new_message(key.1, None, SECRET)).collect::<Vec<_>>()).await;
    append_opened(&*replicas[0], &messages.iter().map(|message| edit(message, "Sekret too")).collect::<Vec<_>>()).await;
    append_opened(
        &*replicas[1],
        &messages.iter().map(|message| change(message, message.data.sender, Op::Delete)).collect::<Vec<_>>(),
    )
    .await;
    let erase = async |store: &dyn Store| {
        let mut events = 0;
        loop {
            let erased = store.erase_deleted(7, 3).await.unwrap();
            events += erased.events;
            if !erased.more {
                return events;
            }
        }
    };
    let (one, two) = tokio::join!(erase(&*replicas[0]), erase(&*replicas[1]));
    assert_eq!((one + two, fixture.secrets().await), (80, 0));
}
