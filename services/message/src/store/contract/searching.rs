//! The index of messages, and the searches in it.

mod probes;

use std::sync::Arc;

use super::changes::{appended, change, edit, open_with};
use super::*;
use crate::indexing::index_all;
use crate::service::{Finder, FoundMessages};
use crate::store::search::{IndexPage, Place, Wanted};
use crate::words::Query;
use probes::{MESSAGES, PROBES};

on_both!(
    probes_in_many_languages,
    changes_are_indexed,
    pages_of_the_log_are_indexed_once,
    an_interrupted_page_is_indexed_again,
    partitions_have_one_holder,
    the_index_is_built_again,
    only_readers_find_messages,
    searches_without_a_room_cover_the_rooms_of_the_user,
    pages_continue_below_the_last_message,
    senders_and_times_are_filtered,
    deleted_rooms_are_forgotten,
    nothing_of_a_deleted_message_remains_in_the_index,
);

async fn index(store: &dyn Store) {
    let started = Instant::now();
    loop {
        // Always the same holder, which need not wait for the end of its claim.
        index_all(store, Uuid::max()).await.unwrap();
        if store.searches().unindexed_since().await.unwrap().is_none() {
            return;
        }
        // A statement that was interrupted may hold its partition until the database notices.
        assert!(started.elapsed() < Duration::from_secs(20), "the index is not complete");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn finder(store: &Arc<dyn Store>, query: &str, reader: Uuid) -> Finder {
    let (query, readers) = (Query::of(query), Readers::Users(vec![reader]));
    Finder { store: store.clone(), query, readers, room: None, sender: None, below: Place::above_all(), limit: 200 }
}

async fn find(finder: Finder) -> FoundMessages {
    finder.find().await.unwrap()
}

/// Returns the numbers of the messages that a user finds in a room.
async fn in_room(store: &Arc<dyn Store>, room: Uuid, query: &str) -> Vec<u64> {
    let found = find(Finder { room: Some(room), ..finder(store, query, Uuid::now_v7()) }).await;
    found.items.iter().map(|(event, _)| event.seq).collect()
}

async fn texts(store: &Arc<dyn Store>, query: &str, reader: Uuid) -> Vec<String> {
    let found = find(finder(store, query, reader)).await;
    found.items.iter().map(|(event, _)| event.data.body.content.clone()).collect()
}

async fn probes_in_many_languages(fixture: Fixture) {
    let store = fixture.open().await;
    let (room, other) = (open_with(&*store, false, &[]).await, open_with(&*store, false, &[]).await);
    for text in MESSAGES {
        append_new(&*store, &[new_message(room.1, None, text), new_message(other.1, None, text)]).await;
    }
    index(&*store).await;
    assert!(PROBES.len() >= 60);
    for (query, expected) in PROBES {
        let found = in_room(&store, room.1, query).await;
        assert_eq!(found, expected.iter().map(|number| *number as u64).collect::<Vec<_>>(), "{query}");
    }
    let found = find(Finder { room: Some(room.1), ..finder(&store, "cafe 26", Uuid::now_v7()) }).await;
    assert_eq!(found.items.len(), 0);
    let found = find(Finder { room: Some(room.1), ..finder(&store, "cafe", Uuid::now_v7()) }).await;
    assert_eq!(found.items[0].1, [(10, 14)]);
}

async fn changes_are_indexed(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    let [first, second] = [
        appended(&*store, new_message(key.1, None, "apples and pears")).await,
        appended(&*store, new_message(key.1, None, "apples alone")).await,
    ];
    index(&*store).await;
    appended(&*store, edit(&first, "only cherries")).await;
    appended(&*store, change(&second, second.data.sender, Op::Delete)).await;
    // Right at once: the text itself is checked.
    assert_eq!(in_room(&store, key.1, "apples").await, [0; 0]);
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "apples").await, [0; 0]);
    assert_eq!(in_room(&store, key.1, "cherries").await, [1]);
    // Edited to a text without words and back, and all in one page of the log.
    appended(&*store, edit(&first, "!!!")).await;
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "cherries").await, [0; 0]);
    appended(&*store, edit(&first, "plums")).await;
    let third = appended(&*store, new_message(key.1, None, "plums too")).await;
    appended(&*store, edit(&third, "plums, edited")).await;
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "plums").await, [third.seq, 1]);
    assert_eq!(in_room(&store, key.1, "too").await, [0; 0]);
}

async fn pages_of_the_log_are_indexed_once(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    append_new(&*store, &[new_message(key.1, None, "one"), new_message(key.1, None, "two")]).await;
    let page = || IndexPage { partition: key.0, after: 0, up_to: 2, ..IndexPage::default() };
    assert!(!store.searches().index(IndexPage { after: 1, ..page() }).await.unwrap(), "a gap");
    fixture.execute(&format!("UPDATE log SET format = {}", FORMAT + 1)).await;
    index_all(&*store, Uuid::max()).await.unwrap();
    assert!(store.searches().unindexed_since().await.unwrap().is_some(), "a newer format is for newer programs");
    fixture.execute(&format!("UPDATE log SET format = {FORMAT}")).await;
    index(&*store).await;
    // Another replica is late with the same page.
    assert!(!store.searches().index(page()).await.unwrap());
    assert_eq!(in_room(&store, key.1, "one").await, [1]);
    assert_eq!(store.searches().claim_unindexed(Uuid::now_v7(), 100).await.unwrap(), []);
    let wanted = Wanted {
        terms: Query::of("tw").needed(),
        rooms: vec![key.1],
        sender: None,
        below: Place::above_all(),
        limit: 10,
    };
    assert_eq!(store.searches().find_messages(wanted).await.unwrap().len(), 1, "no doubles");
}

async fn partitions_have_one_holder(fixture: Fixture) {
    let [one, two] = fixture.replicas().await;
    let key = open_with(&*one, false, &[]).await;
    append_new(&*one, &[new_message(key.1, None, "one")]).await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    for _ in 0..2 {
        assert_eq!(
            one.searches().claim_unindexed(first, 100).await.unwrap(),
            [(key.0, 0)],
            "a holder renews its claim"
        );
    }
    if let Fixture::Postgres(_) = fixture {
        assert_eq!(two.searches().claim_unindexed(second, 100).await.unwrap(), []);
        // The first replica was killed.
        let begun = Instant::now();
        while two.searches().claim_unindexed(second, 100).await.unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
    }
    index_all(&*two, second).await.unwrap();
    assert_eq!(in_room(&one, key.1, "one").await, [1]);
}

async fn the_index_is_built_again(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    let batch = (0..30).map(|n| new_message(key.1, None, &format!("number {n}"))).collect::<Vec<_>>();
    let events = append_new(&*store, &batch).await;
    index(&*store).await;
    appended(&*store, change(&events[7], events[7].data.sender, Op::Delete)).await;
    index(&*store).await;
    let before = in_room(&store, key.1, "number").await;
    assert_eq!(before.len(), 29);
    store.searches().reindex().await.unwrap();
    assert_eq!(store.searches().unindexed_since().await.unwrap(), Some(events[0].created_at_ms));
    assert_eq!(in_room(&store, key.1, "number").await, before, "meanwhile the former index is used");
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "number").await, before);
    // As after a restore without the index.
    let empty = match fixture {
        Fixture::Postgres(_) => "DELETE FROM search; UPDATE search_progress SET position = 0",
        Fixture::Sqlite(_) => {
            "INSERT INTO search_terms (search_terms) VALUES ('delete-all'); DELETE FROM search; DELETE FROM search_progress"
        }
    };
    fixture.execute(empty).await;
    assert_eq!(in_room(&store, key.1, "number").await, [0; 0]);
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "number").await, before);
}

async fn only_readers_find_messages(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, member, stranger] = [(); 3].map(|()| Uuid::now_v7());
    let private = open_with(&*store, true, &[(owner, Role::Owner), (member, Role::Member)]).await;
    let secret = EventData { sender: owner, ..new_message(private.1, None, "secret") };
    appended(&*store, secret).await;
    index(&*store).await;
    assert_eq!(texts(&store, "secret", member).await, ["secret"]);
    assert_eq!(texts(&store, "secret", stranger).await, [""; 0]);
    assert_eq!(in_room(&store, private.1, "secret").await, [0; 0]);
    let moderator = Finder { room: Some(private.1), readers: Readers::Moderator, ..finder(&store, "secret", owner) };
    assert_eq!(find(moderator).await.items.len(), 1);
    let body = Body {
        event: "memberLeft".into(),
        data: "{}".into(),
        access: Some(AccessChange { removed: vec![member], private: true, ..AccessChange::default() }),
        ..Body::default()
    };
    let leaving = EventData { kind: Kind::System, body, ..new_message(private.1, None, "") };
    append_opened(&*store, &[leaving]).await;
    assert_eq!(texts(&store, "secret", member).await, [""; 0], "before the index follows");
    let of_private = Finder { room: Some(private.1), ..finder(&store, "secret", member) };
    assert_eq!(find(of_private).await.items.len(), 0);
    assert_eq!(texts(&store, "secret", owner).await, ["secret"]);
}

async fn searches_without_a_room_cover_the_rooms_of_the_user(fixture: Fixture) {
    let store = fixture.open().await;
    let user = Uuid::now_v7();
    // More rooms than one look-up has.
    let mut rooms = Vec::new();
    for n in 0..70 {
        let key = open_with(&*store, n % 2 == 0, &[(user, Role::Member)]).await;
        let text = if n == 3 { "rare word" } else { "common word" };
        appended(&*store, EventData { sender: user, ..new_message(key.1, None, text) }).await;
        rooms.push(key);
    }
    let foreign = open_with(&*store, false, &[]).await;
    let strange = (0..20).map(|_| new_message(foreign.1, None, "common rare word")).collect::<Vec<_>>();
    append_new(&*store, &strange).await;
    index(&*store).await;
    assert_eq!(texts(&store, "rare", user).await, ["rare word"]);
    assert_eq!(texts(&store, "common", user).await.len(), 69);
    assert_eq!(in_room(&store, foreign.1, "common").await.len(), 20, "a public room can be searched by all users");
    let few = Finder { limit: 5, ..finder(&store, "word", user) };
    let few = find(few).await;
    let newest = few.items.iter().map(|(event, _)| event.data.room).collect::<std::collections::HashSet<_>>();
    assert_eq!((newest.len(), few.next_cursor.is_empty()), (5, false));
}

async fn pages_continue_below_the_last_message(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    // Many messages of the same millisecond, and messages that have the terms but not the text.
    let text =
        |n: usize| if n.is_multiple_of(3) { format!("上海海上 {n}") } else { format!("上海人 海边 {n}") };
    let batch = (1..=90).map(|n| new_message(key.1, None, &text(n))).collect::<Vec<_>>();
    append_new(&*store, &batch).await;
    index(&*store).await;
    let mut below = Place::above_all();
    let mut seqs = Vec::new();
    loop {
        let page = Finder { room: Some(key.1), limit: 7, below, ..finder(&store, "上海海上", Uuid::now_v7()) };
        let page = find(page).await;
        seqs.extend(page.items.iter().map(|(event, _)| event.seq));
        if page.next_cursor.is_empty() {
            break;
        }
        below = confab_common::cursor::decode(&page.next_cursor).unwrap();
    }
    assert_eq!(seqs, (1..=30).rev().map(|n| n * 3).collect::<Vec<_>>());
}

async fn senders_and_times_are_filtered(fixture: Fixture) {
    let store = fixture.open().await;
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let key = open_with(&*store, false, &[]).await;
    for (sender, text) in [(ada, "hello 1"), (bob, "hello 2"), (ada, "hello 3")] {
        appended(&*store, EventData { sender, ..new_message(key.1, None, text) }).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    index(&*store).await;
    let seqs = async |sender, below| {
        let found = find(Finder { room: Some(key.1), sender, below, ..finder(&store, "hello", bob) }).await;
        found.items.iter().map(|(event, _)| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(Some(ada), Place::above_all()).await, [3, 1]);
    assert_eq!(seqs(Some(Uuid::now_v7()), Place::above_all()).await, [0; 0]);
    let third = history(&*store, key.1).await[2].created_at_ms;
    assert_eq!(seqs(None, Place::before(third)).await, [2, 1]);
    assert_eq!(seqs(None, Place::before(third + 1)).await, [3, 2, 1]);
    assert_eq!(seqs(None, Place::before(-1)).await, [0; 0]);
}

async fn deleted_rooms_are_forgotten(fixture: Fixture) {
    let store = fixture.open().await;
    let (gone, stays) = (open_with(&*store, false, &[]).await, open_with(&*store, false, &[]).await);
    let batch = (0..40).map(|_| new_message(gone.1, None, "hello")).collect::<Vec<_>>();
    append_new(&*store, &batch).await;
    appended(&*store, new_message(stays.1, None, "hello")).await;
    index(&*store).await;
    let body = Body { event: "roomDeleted".into(), data: "{}".into(), ..Body::default() };
    let closing = EventData { kind: Kind::System, closes_room: true, body, ..new_message(gone.1, None, "") };
    append_opened(&*store, &[closing]).await;
    assert_eq!(in_room(&store, gone.1, "hello").await, [0; 0]);
    index(&*store).await;
    let wanted = |room| Wanted {
        terms: Query::of("hello").needed(),
        rooms: vec![room],
        sender: None,
        below: Place::above_all(),
        limit: 100,
    };
    assert_eq!(store.searches().find_messages(wanted(gone.1)).await.unwrap(), []);
    assert_eq!(store.searches().find_messages(wanted(stays.1)).await.unwrap().len(), 1);
    assert!(!store.searches().forget_closed(10).await.unwrap());
}

async fn nothing_of_a_deleted_message_remains_in_the_index(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    let message = appended(&*store, new_message(key.1, None, "xylophonic")).await;
    index(&*store).await;
    assert!(fixture.indexed("ylophonic").await > 0);
    for n in 0..20 {
        appended(&*store, new_message(key.1, None, &format!("others {n}"))).await;
        index(&*store).await;
    }
    appended(&*store, edit(&message, "zyzzyva")).await;
    index(&*store).await;
    assert!(fixture.indexed("yzzyva").await > 0);
    appended(&*store, change(&message, message.data.sender, Op::Delete)).await;
    index(&*store).await;
    assert_eq!([fixture.indexed("ylophonic").await, fixture.indexed("yzzyva").await], [0, 0]);
}

impl Fixture {
    /// Returns how many rows of the index contain a text.
    async fn indexed(&self, text: &str) -> i64 {
        match self {
            Self::Postgres(url) => {
                let count = "SELECT count(*) FROM message.search WHERE strpos(terms::text, $1) > 0";
                connect(url).await.query_one(count, &[&text]).await.unwrap().get(0)
            }
            Self::Sqlite(path) => {
                let database = rusqlite::Connection::open(path).unwrap();
                let count = "SELECT (SELECT count(*) FROM search_terms_data WHERE instr(block, CAST(?1 AS BLOB)))
                    + (SELECT count(*) FROM search WHERE instr(terms, ?1))";
                database.query_row(count, [text], |row| row.get(0)).unwrap()
            }
        }
    }
}

async fn an_interrupted_page_is_indexed_again(fixture: Fixture) {
    let store = fixture.open().await;
    let key = open_with(&*store, false, &[]).await;
    // Texts with such a number of terms that a page of them takes many steps.
    let text =
        |n: u32| (0..1500).filter_map(|at| char::from_u32(0x4e00 + at * 7 % 3001 + n)).collect::<String>() + " mark";
    let batch = (0..20).map(|n| new_message(key.1, None, &text(n))).collect::<Vec<_>>();
    append_new(&*store, &batch).await;
    for wait in [1, 5, 20] {
        let indexing = index_all(&*store, Uuid::max());
        let _ = tokio::time::timeout(Duration::from_millis(wait), indexing).await;
    }
    index(&*store).await;
    assert_eq!(in_room(&store, key.1, "mark").await, (1..=20).rev().collect::<Vec<_>>());
    let rows = match &fixture {
        Fixture::Postgres(url) => {
            connect(url).await.query_one("SELECT count(*) FROM message.search", &[]).await.unwrap().get(0)
        }
        Fixture::Sqlite(path) => {
            let count = "SELECT count(*) FROM search_terms WHERE search_terms MATCH 'mark'";
            rusqlite::Connection::open(path).unwrap().query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
        }
    };
    assert_eq!(rows, 20, "no doubles");
}
