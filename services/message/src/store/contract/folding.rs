//! Reads of messages in their present state.

use super::changes::{append_one, appended, change, edit, open_with};
use super::*;

on_both!(
    pages_skip_changes,
    every_read_shows_the_present,
    the_log_has_changes_with_their_messages,
    a_repeat_is_answered_with_the_present_message,
    catching_up_returns_new_and_changed_messages,
    catching_up_is_bounded,
    changed_messages_are_listed_by_revision,
    versions_are_those_of_a_living_message,
    private_rooms_are_read_by_members,
);

/// Returns the numbers of a page, and whether items may follow.
fn shown(page: &Page) -> (Vec<u64>, u64) {
    (seqs(&page.events), page.last)
}

async fn pages_skip_changes(fixture: Fixture) {
    let store = fixture.open().await;
    let author = Uuid::now_v7();
    let (partition, room) = open_with(&*store, false, &[(author, Role::Owner)]).await;
    let key = (partition, room);
    let first = appended(&*store, EventData { sender: author, ..new_message(room, None, "x") }).await;
    // Runs of changes of several lengths, at the beginning, within and at the end.
    for (round, run) in [3, 0, 1, 0, 0, 7, 2, 0, 1, 4].into_iter().enumerate() {
        for n in 0..run {
            appended(&*store, edit(&first, &format!("{round} {n}"))).await;
        }
        if round < 9 {
            appended(&*store, new_message(room, None, "between")).await;
        }
    }
    let (all, _) = store.read_events(key, Window::After(0), ALL, Readers::Moderator).await.unwrap();
    let head = all.head;
    assert_eq!(seqs(&all.events), (1..=head).collect::<Vec<_>>());
    let items: Vec<_> =
        all.events.iter().filter(|event| event.data.kind != Kind::Change).map(|event| event.seq).collect();
    let last = *items.last().unwrap();
    for events in [1, 2, 3, 5, 100] {
        let limit = Limit { events, bytes: u32::MAX };
        for seq in (0..=head + 2).chain([u64::MAX]) {
            let after: Vec<_> = items.iter().copied().filter(|item| *item > seq).take(events as usize).collect();
            assert_eq!(shown(&list(&*store, key, Window::After(seq), limit).await), (after, last), "after {seq}");
            let mut before: Vec<_> =
                items.iter().rev().copied().filter(|item| *item < seq).take(events as usize).collect();
            before.reverse();
            assert_eq!(shown(&list(&*store, key, Window::Before(seq), limit).await), (before, last), "before {seq}");
        }
        let latest: Vec<_> = items.iter().copied().skip(items.len().saturating_sub(events as usize)).collect();
        assert_eq!(shown(&list(&*store, key, Window::Latest, limit).await), (latest, last));
    }
    let none = list(&*store, key, Window::Latest, Limit { events: 0, bytes: 1 }).await;
    assert_eq!((shown(&none), none.head), ((vec![], last), head));
    for window in [Window::After(head - 2), Window::Before(3), Window::Latest] {
        let limit = Limit { events: 2, bytes: u32::MAX };
        let (page, _) = store.read_events(key, window, limit, Readers::Moderator).await.unwrap();
        assert_eq!((page.events.len(), page.last), (2, head), "{window:?}");
    }
}

/// Appends a message that was edited and pinned, and one that was deleted, with a file each.
async fn changed(store: &dyn Store) -> (RoomKey, Uuid, [Event; 2]) {
    let owner = Uuid::now_v7();
    let key = open_with(store, false, &[(owner, Role::Owner)]).await;
    let file = |name: &str| File {
        id: Uuid::now_v7(),
        name: name.into(),
        size: 1,
        content_type: "text/plain".into(),
        sha256: "0f".repeat(32),
        uploader: owner,
        uploader_username: "ada".into(),
        created_at_ms: 1,
        safe_inline: true,
        deleted: false,
    };
    let mut messages =
        ["edited", "deleted"].map(|text| EventData { sender: owner, ..new_message(key.1, Some(text), text) });
    for message in &mut messages {
        message.body.files = vec![file("notes.txt")];
    }
    let [edited, deleted] = [appended(store, messages[0].clone()).await, appended(store, messages[1].clone()).await];
    appended(store, edit(&edited, "")).await;
    appended(store, edit(&edited, "better")).await;
    appended(store, change(&edited, owner, Op::Pin)).await;
    appended(store, change(&deleted, owner, Op::Delete)).await;
    store.forget_files(key, vec![edited.data.body.files[0].id]).await.unwrap();
    (key, owner, [edited, deleted])
}

/// Checks the two messages of [`changed`].
fn check(owner: Uuid, messages: &[Event]) {
    let [edited, deleted] = messages else { panic!("{messages:?}") };
    assert_eq!((edited.seq, edited.data.body.content.as_str(), edited.data.body.files.len()), (1, "better", 1));
    assert!(edited.data.body.files[0].deleted);
    let state = edited.state.as_ref().unwrap();
    assert!(state.edited_at_ms.is_some_and(|at| at >= edited.created_at_ms));
    assert_eq!((state.revision, state.pinned, &state.deleted_by), (5, true, &None));
    assert_eq!((deleted.seq, deleted.data.body.content.as_str(), deleted.data.body.files.len()), (2, "", 0));
    assert_eq!(deleted.data.body.sender_username, "ada");
    let deleted_by = Some((owner, "ada".to_owned()));
    let state = State { revision: 6, edited_at_ms: None, deleted_by, pinned: false, reactions: Vec::new() };
    assert_eq!(deleted.state.as_deref(), Some(&state));
}

async fn every_read_shows_the_present(fixture: Fixture) {
    let store = fixture.open().await;
    let (key, owner, originals) = changed(&*store).await;
    check(owner, &history(&*store, key.1).await);
    check(owner, &list(&*store, key, Window::Latest, ALL).await.events);
    let (page, _) = store.read_events(key, Window::After(0), ALL, Readers::Moderator).await.unwrap();
    check(owner, &page.events[..2]);
    let acts =
        page.events[2..].iter().map(|event| (event.seq, event.data.change.unwrap().act(), event.message.is_some()));
    let expected = [(3, (1, Op::Edit)), (4, (1, Op::Edit)), (5, (1, Op::Pin)), (6, (2, Op::Delete))];
    assert_eq!(acts.collect::<Vec<_>>(), expected.map(|(seq, act)| (seq, act, false)));
    let log = store.read_log(key.0, 0, ALL).await.unwrap().events;
    check(owner, &log[..2]);
    let (_, changed, _) = store.catch_up(key, 2, 1, ALL, Readers::Moderator).await.unwrap();
    check(owner, &changed.messages);
    let mut found = Vec::new();
    for original in &originals {
        found.extend(store.find(&original.data).await.unwrap().1);
    }
    check(owner, &found);
    let (pins, _) = store.pins(key, Readers::Moderator).await.unwrap();
    assert_eq!((seqs(&pins.events), pins.events[0].data.body.content.as_str()), (vec![1], "better"));
}

async fn the_log_has_changes_with_their_messages(fixture: Fixture) {
    let store = fixture.open().await;
    let (key, owner, _) = changed(&*store).await;
    let log = store.read_log(key.0, 2, ALL).await.unwrap().events;
    let messages: Vec<_> = log.iter().map(|event| event.message.as_deref().unwrap().clone()).collect();
    for edited in &messages[..3] {
        check(owner, &[edited.clone(), messages[3].clone()]);
    }
    // The messages count towards the size of a page.
    let bytes = log[..2].iter().map(Event::size).sum::<usize>() as u32 + 400;
    assert!(store.read_log(key.0, 2, Limit { events: 100, bytes }).await.unwrap().events.len() <= 3);
    let appended = appended(&*store, edit(&messages[0], "best")).await;
    let message = appended.message.unwrap();
    assert_eq!((message.data.body.content.as_str(), message.state.as_ref().unwrap().revision), ("best", 7));
    assert!(message.data.body.files[0].deleted, "deleted files are marked");
    let found = store.find(&appended.data).await.unwrap().1.unwrap();
    assert_eq!(found.message.unwrap().data.body.content, "best");
}

async fn a_repeat_is_answered_with_the_present_message(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, owner, [edited, deleted]) = changed(&*store).await;
    let again = |event: &Event| EventData { id: Uuid::now_v7(), ..EventData::clone(&event.data) };
    let outcomes = append_opened(&*store, &[again(&edited), again(&deleted)]).await;
    let messages = outcomes.into_iter().map(|outcome| match outcome {
        Ok(Outcome::Repeated(event)) => event,
        outcome => panic!("{outcome:?}"),
    });
    check(owner, &messages.collect::<Vec<_>>());
}

async fn catching_up_returns_new_and_changed_messages(fixture: Fixture) {
    let store = fixture.open().await;
    let (key, owner, [edited, _]) = changed(&*store).await;
    let newer = appended(&*store, new_message(key.1, None, "newer")).await;
    let catch_up = async |after, from| {
        let (page, changed, _) = store.catch_up(key, after, from, ALL, Readers::Moderator).await.unwrap();
        assert!(!changed.more);
        (seqs(&page.events), seqs(&changed.messages), page.last, page.head)
    };
    assert_eq!(catch_up(0, 0).await, (vec![1, 2, newer.seq], vec![], 7, 7));
    assert_eq!(catch_up(2, 1).await, (vec![newer.seq], vec![1, 2], 7, 7));
    assert_eq!(catch_up(2, 2).await, (vec![newer.seq], vec![2], 7, 7));
    assert_eq!(catch_up(5, 0).await, (vec![newer.seq], vec![2], 7, 7));
    assert_eq!(catch_up(6, 0).await, (vec![newer.seq], vec![], 7, 7));
    assert_eq!(catch_up(7, 0).await, (vec![], vec![], 7, 7));
    appended(&*store, change(&edited, owner, Op::Unpin)).await;
    assert_eq!(catch_up(7, 0).await, (vec![], vec![1], 7, 8));
    assert_eq!(catch_up(u64::MAX, 0).await, (vec![], vec![], 7, 8));
}

async fn catching_up_is_bounded(fixture: Fixture) {
    let store = fixture.open().await;
    let author = Uuid::now_v7();
    let key = open_with(&*store, false, &[]).await;
    let mine = |text: &str| EventData { sender: author, ..new_message(key.1, None, text) };
    let old = append_new(&*store, &(0..150).map(|_| mine("old")).collect::<Vec<_>>()).await;
    append_opened(&*store, &old.iter().map(|message| edit(message, &"y".repeat(500))).collect::<Vec<_>>()).await;
    append_new(&*store, &(0..100).map(|_| mine("new")).collect::<Vec<_>>()).await;
    let catch_up = async |events, bytes| {
        let limit = Limit { events, bytes };
        let (page, changed, _) = store.catch_up(key, 150, 0, limit, Readers::Moderator).await.unwrap();
        (
            page.events.len(),
            changed.messages.len(),
            changed.more,
            page.events.iter().chain(&changed.messages).map(Event::size).sum::<usize>(),
        )
    };
    let (new, changed, more, _) = catch_up(200, u32::MAX).await;
    assert_eq!((new, changed, more), (100, 100, true));
    let (new, changed, more, _) = catch_up(20, u32::MAX).await;
    assert_eq!((new, changed, more), (20, 150, false));
    let (new, changed, more, bytes) = catch_up(20, 32 * 1024).await;
    assert!(new == 20 && more && (20..60).contains(&changed) && bytes <= 32 * 1024, "{changed} in {bytes} bytes");
    let (new, changed, more, _) = catch_up(20, 1).await;
    assert_eq!((new, changed, more), (1, 0, true));
}

async fn changed_messages_are_listed_by_revision(fixture: Fixture) {
    let store = fixture.open().await;
    let author = Uuid::now_v7();
    let key = open_with(&*store, false, &[]).await;
    let batch = (0..5).map(|_| EventData { sender: author, ..new_message(key.1, None, "x") }).collect::<Vec<_>>();
    let messages = append_new(&*store, &batch).await;
    for n in [4, 0, 2, 0] {
        appended(&*store, edit(&messages[n], &Uuid::now_v7().to_string())).await;
    }
    let changes = async |after, from, up_to, events| {
        let between = ChangedBetween { after, from, up_to };
        let limit = Limit { events, bytes: u32::MAX };
        let (page, changed, _) = store.changes(key, between, limit, Readers::Moderator).await.unwrap();
        assert_eq!((page.head, page.events.len()), (9, 0));
        (seqs(&changed.messages), changed.more)
    };
    assert_eq!(changes(0, 0, u64::MAX, 10).await, (vec![5, 3, 1], false));
    assert_eq!(changes(0, 0, u64::MAX, 2).await, (vec![5, 3], true));
    assert_eq!(changes(0, 0, u64::MAX, 3).await, (vec![5, 3, 1], false));
    assert_eq!(changes(6, 0, u64::MAX, 10).await, (vec![3, 1], false));
    assert_eq!(changes(0, 2, 4, 10).await, (vec![3], false));
    assert_eq!(changes(0, 3, 5, 10).await, (vec![5, 3], false));
    assert_eq!(changes(9, 0, u64::MAX, 10).await, (vec![], false));
}

async fn versions_are_those_of_a_living_message(fixture: Fixture) {
    let store = fixture.open().await;
    let (key, owner, [edited, deleted]) = changed(&*store).await;
    let versions = async |seq, reader: Uuid| store.versions(key, seq, vec![reader].into()).await.unwrap().0;
    let read = versions(1, owner).await;
    assert_eq!((read.author, read.role), (Some(owner), Some(Role::Owner)));
    let texts: Vec<_> = read.versions.iter().map(|it| (it.revision, it.content.as_str(), it.by.clone())).collect();
    let by = (owner, "ada".to_owned());
    assert_eq!(texts, [(1, "edited", by.clone()), (3, "", by.clone()), (4, "better", by)]);
    assert_eq!(read.versions[0].at_ms, edited.created_at_ms);
    let read = versions(deleted.seq, Uuid::now_v7()).await;
    assert_eq!((read.author, read.role, read.versions.len()), (Some(owner), None, 0));
    // A change is no message, and there is no eighth event.
    for seq in [3, 8, u64::MAX] {
        assert_eq!(versions(seq, owner).await.author, None);
    }
    let other = appended(&*store, EventData { sender: owner, ..new_message(key.1, None, "0") }).await;
    assert_eq!(versions(other.seq, owner).await.versions.len(), 1);
    let edits = (1..=210).map(|n| edit(&other, &n.to_string())).collect::<Vec<_>>();
    append_opened(&*store, &edits).await;
    let read = versions(other.seq, owner).await.versions;
    assert_eq!((read.len(), read[0].content.as_str(), read[199].content.as_str()), (MAX_VERSIONS, "11", "210"));
    assert!(read.is_sorted_by_key(|version| version.revision));
}

async fn private_rooms_are_read_by_members(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let key = open_with(&*store, true, &[(owner, Role::Owner)]).await;
    let message = appended(&*store, EventData { sender: owner, ..new_message(key.1, None, "text") }).await;
    appended(&*store, edit(&message, "better")).await;
    appended(&*store, change(&message, owner, Op::Pin)).await;
    let between = ChangedBetween { after: 0, from: 0, up_to: u64::MAX };
    for (readers, sees) in [
        (Readers::Users(vec![owner]), true),
        (Readers::Moderator, true),
        (Readers::Users(vec![Uuid::now_v7()]), false),
        (Readers::Users(Vec::new()), false),
    ] {
        let (events, access) = store.read_events(key, Window::Latest, ALL, readers.clone()).await.unwrap();
        assert_eq!(
            (events.events.len(), readers.may_read(&access), access.private),
            (usize::from(sees) * 3, sees, true)
        );
        let (page, changed, access) = store.catch_up(key, 1, 0, ALL, readers.clone()).await.unwrap();
        assert_eq!((page.events.len(), changed.messages.len(), access.exists), (0, usize::from(sees), true));
        let (_, changed, access) = store.changes(key, between, ALL, readers.clone()).await.unwrap();
        assert_eq!((changed.messages.len(), changed.more, readers.may_read(&access)), (usize::from(sees), false, sees));
        let (versions, access) = store.versions(key, 1, readers.clone()).await.unwrap();
        assert_eq!((versions.versions.len(), versions.author.is_some()), (usize::from(sees) * 2, sees));
        assert_eq!((readers.may_read(&access), access.exists), (sees, true));
        let (pins, access) = store.pins(key, readers.clone()).await.unwrap();
        assert_eq!((pins.events.len(), readers.may_read(&access)), (usize::from(sees), sees));
    }
    let unknown = (0, rooms_in(0).next().unwrap());
    assert!(!store.pins(unknown, Readers::Moderator).await.unwrap().1.exists);
    assert!(!store.versions(unknown, 1, Readers::Moderator).await.unwrap().1.exists);
    assert!(matches!(append_one(&*store, edit(&message, "best")).await, Outcome::Appended(_)));
}
