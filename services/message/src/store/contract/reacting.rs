//! Reactions: what one batch makes of them, when they are refused, and who has reacted.

use std::collections::BTreeSet;

use super::changes::{append_one, appended, change, open_with};
use super::*;

on_both!(
    reactions_of_one_batch_are_one_event,
    what_changes_nothing_is_not_appended,
    a_message_has_reactions_with_at_most_20_names,
    a_deleted_message_loses_its_reactions,
    refusals_come_in_their_order,
    a_private_room_hides_its_reactions_from_strangers,
    reactions_are_listed_in_pages,
    a_storm_is_counted_exactly,
    reads_fold_reactions_into_the_message,
    each_event_has_the_reactions_after_it,
);

/// Creates a reaction that is set, or ends.
pub fn react(message: &Event, sender: Uuid, name: &str, on: bool) -> EventData {
    let reacted = Reacted { user: sender, username: "ada".into(), name: name.into(), on };
    let data = change(message, sender, Op::React);
    EventData { body: Body { reacted: vec![reacted], ..data.body.clone() }, ..data }
}

fn counts(message: &Event) -> Vec<(String, u64)> {
    let reactions = message.state.iter().flat_map(|state| state.reactions.clone());
    reactions.map(|reaction| (reaction.name, reaction.count)).collect()
}

fn named<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

/// Returns the event of a reaction, if it has one, its message, and the sender's names.
fn reacted(outcome: Outcome) -> (Option<Event>, Event, Vec<String>) {
    let Outcome::Reacted(event, own) = outcome else { panic!("{outcome:?}") };
    match event.message.clone() {
        Some(message) => (Some(event), Event::clone(&message), own),
        None => (None, event, own),
    }
}

async fn message_in(store: &dyn Store, room: Uuid) -> Event {
    appended(store, new_message(room, None, "text")).await
}

async fn reactions_of_one_batch_are_one_event(fixture: Fixture) {
    let store = fixture.open().await;
    let (partition, room) = open_with(&*store, false, &[]).await;
    let [first, other] = [message_in(&*store, room).await, message_in(&*store, room).await];
    let [ada, eve] = [0; 2].map(|_| Uuid::now_v7());
    let batch = [
        react(&first, ada, "b", true),
        react(&other, ada, "b", true),
        react(&first, eve, "b", true),
        react(&first, eve, "a", true),
        react(&first, eve, "b", false),
        react(&first, ada, "b", true),
        new_message(room, None, "later"),
    ];
    let mut outcomes = append_opened(&*store, &batch).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    // Other events overtake reactions.
    assert!(matches!(outcomes.pop(), Some(Outcome::Appended(event)) if event.seq == 3));
    let outcomes = outcomes.into_iter().map(reacted).collect::<Vec<_>>();
    let seqs = outcomes.iter().map(|(event, ..)| event.as_ref().map(|event| event.seq)).collect::<Vec<_>>();
    assert_eq!(seqs, [Some(4), Some(5), Some(4), Some(4), Some(4), None]);
    for (n, (_, message, own)) in outcomes.iter().enumerate() {
        let (expected, names) = match n {
            1 => (named([("b", 1)]), vec!["b"]),
            0 | 5 => (named([("b", 1), ("a", 1)]), vec!["b"]),
            _ => (named([("b", 1), ("a", 1)]), vec!["a"]),
        };
        assert_eq!((counts(message), own.iter().map(String::as_str).collect()), (expected, names), "{n}");
        assert_eq!(message.data.id, [&first, &other][usize::from(n == 1)].data.id);
        let is_bare = message.data.body.content.is_empty();
        assert_eq!(is_bare, n < 5, "the event of a reaction has no text: {n}");
    }
    let event = outcomes[0].0.clone().unwrap();
    let acts =
        |event: &Event| event.data.body.reacted.iter().map(|it| (it.user, it.name.clone(), it.on)).collect::<Vec<_>>();
    let expected = [(ada, "b", true), (eve, "b", true), (eve, "a", true), (eve, "b", false)];
    assert_eq!(acts(&event), expected.map(|(user, name, on)| (user, name.to_owned(), on)));
    assert_eq!((event.data.sender, event.data.change.unwrap().act()), (ada, (first.seq, Op::React)));
    // The log has the same event, with its message.
    let page = store.read_log(partition, 0, ALL).await.unwrap();
    let logged = page.events.iter().find(|logged| logged.seq == 4).unwrap();
    assert_eq!((logged, logged.message.as_deref().map(counts)), (&event, Some(named([("b", 1), ("a", 1)]))));
}

async fn what_changes_nothing_is_not_appended(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let user = Uuid::now_v7();
    let head = async || store.room_heads(vec![(message.data.partition, room)]).await.unwrap().heads[0].seq;
    let (none, ..) = reacted(append_one(&*store, react(&message, user, "x", false)).await);
    assert_eq!((none, head().await), (None, 1));
    let once = react(&message, user, "x", true);
    for expected in [Some(2), None] {
        let (event, message, own) = reacted(append_one(&*store, once.clone()).await);
        assert_eq!((event.map(|event| event.seq), counts(&message)), (expected, named([("x", 1)])));
        assert_eq!(own, ["x"]);
    }
    // A resent reaction sets its state again.
    let ended = append_one(&*store, react(&message, user, "x", false)).await;
    assert_eq!(counts(&reacted(ended).1), []);
    let (event, message, _) = reacted(append_one(&*store, once).await);
    assert_eq!((event.unwrap().seq, counts(&message), head().await), (4, named([("x", 1)]), 4));
}

async fn a_message_has_reactions_with_at_most_20_names(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let user = Uuid::now_v7();
    let batch = (0..=MAX_NAMES).map(|n| react(&message, user, &format!("{n}"), true)).collect::<Vec<_>>();
    let mut outcomes = append_opened(&*store, &batch).await;
    assert_eq!(outcomes.pop().unwrap().unwrap(), Outcome::Refused(Refusal::TooManyNames));
    let (_, message, own) = reacted(outcomes.remove(0).unwrap());
    assert_eq!((counts(&message).len(), own.len()), (MAX_NAMES, MAX_NAMES));
    // A name that stands is open to others, and one that ends makes room for another.
    reacted(append_one(&*store, react(&message, Uuid::now_v7(), "7", true)).await);
    let batch = [react(&message, user, "3", false), react(&message, user, "new", true)];
    let outcomes = append_opened(&*store, &batch).await;
    let (_, message, _) = reacted(outcomes.into_iter().next_back().unwrap().unwrap());
    let names = counts(&message);
    assert_eq!((names.len(), &names[6], &names[19]), (MAX_NAMES, &("7".to_owned(), 2), &("new".to_owned(), 1)));
}

async fn a_deleted_message_loses_its_reactions(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let batch = (0..30).map(|_| react(&message, Uuid::now_v7(), "x", true)).collect::<Vec<_>>();
    append_opened(&*store, &batch).await;
    let deleted = appended(&*store, change(&message, message.data.sender, Op::Delete)).await;
    assert_eq!(counts(deleted.message.as_deref().unwrap()), []);
    for on in [true, false] {
        let outcome = append_one(&*store, react(&message, Uuid::now_v7(), "y", on)).await;
        assert_eq!(outcome, Outcome::Refused(Refusal::Deleted));
    }
    let key = (message.data.partition, room);
    let (list, _) = store.reacting().reactions(key, 1, None, <_>::default(), 50, vec![].into()).await.unwrap();
    assert_eq!((list.exists, list.reactions), (true, vec![]));
    assert_eq!(counts(&history(&*store, room).await[0]), []);
    let user = batch[3].sender;
    assert_eq!(store.reacting().own_reactions(key, user, vec![1]).await.unwrap().0.len(), 1, "not erased yet");
    let mut steps = 0;
    while store.erase_deleted(5, 7).await.unwrap().more {
        steps += 1;
    }
    assert!(steps >= 4, "{steps}");
    assert_eq!(store.reacting().own_reactions(key, user, vec![1]).await.unwrap().0, []);
}

async fn refusals_come_in_their_order(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let system = EventData { kind: Kind::System, ..new_message(room, None, "") };
    let system = appended(&*store, system).await;
    let user = Uuid::now_v7();
    reacted(append_one(&*store, react(&message, user, "x", true)).await);
    let of = |seq: u64| Event { seq, ..message.clone() };
    let mut other = react(&message, user, "x", true);
    other.change = other.change.map(|change| Change { target_id: Some(Uuid::now_v7()), ..change });
    for (data, refusal) in [
        (react(&of(3), user, "x", true), Refusal::NoMessage),
        (react(&of(9), user, "x", true), Refusal::NoMessage),
        (react(&system, user, "x", true), Refusal::RoomEvent),
        (other, Refusal::OtherMessage),
    ] {
        assert_eq!(append_one(&*store, data).await, Outcome::Refused(refusal));
    }
    let closing = EventData { kind: Kind::System, closes_room: true, ..new_message(room, None, "") };
    appended(&*store, closing).await;
    assert_eq!(append_one(&*store, react(&message, user, "y", true)).await, Outcome::Hidden);
}

async fn a_private_room_hides_its_reactions_from_strangers(fixture: Fixture) {
    let store = fixture.open().await;
    let [member, stranger] = [0; 2].map(|_| Uuid::now_v7());
    let (partition, room) = open_with(&*store, true, &[(member, Role::Member)]).await;
    let message = appended(&*store, EventData { sender: member, ..new_message(room, None, "x") }).await;
    let outcomes =
        append_opened(&*store, &[react(&message, stranger, "x", true), react(&message, member, "x", true)]).await;
    assert_eq!(outcomes[0].as_ref().unwrap(), &Outcome::Hidden);
    assert_eq!(counts(&reacted(outcomes[1].clone().unwrap()).1), named([("x", 1)]));
    let key = (partition, room);
    for (user, found) in [(member, 1), (stranger, 0)] {
        let readers = Readers::from(vec![user]);
        let (list, access) =
            store.reacting().reactions(key, 1, None, <_>::default(), 50, readers.clone()).await.unwrap();
        assert_eq!((list.exists, list.reactions.len(), readers.may_read(&access)), (found > 0, found, found > 0));
        let (own, access) = store.reacting().own_reactions(key, user, vec![1]).await.unwrap();
        assert_eq!((own.len(), readers.may_read(&access)), (found, found > 0));
    }
    let (list, _) = store.reacting().reactions(key, 1, None, <_>::default(), 50, Readers::Moderator).await.unwrap();
    assert_eq!(list.reactions.len(), 1);
}

async fn reactions_are_listed_in_pages(fixture: Fixture) {
    let store = fixture.open().await;
    let (partition, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let user = Uuid::now_v7();
    for n in 0..10 {
        let sender = if n < 4 { user } else { Uuid::now_v7() };
        let batch = [react(&message, sender, &format!("{n}"), true), react(&message, Uuid::now_v7(), "all", true)];
        append_opened(&*store, &batch).await;
    }
    let pages = async |name: Option<&str>| {
        let (mut after, mut found) = (ReactionPlace::default(), Vec::new());
        loop {
            let name = name.map(str::to_owned);
            let list = store.reacting().reactions((partition, room), 1, name, after, 3, vec![].into()).await.unwrap().0;
            assert!(list.exists && list.reactions.len() <= 3);
            let Some(last) = list.reactions.last() else { return found };
            after = ReactionPlace { at_ms: last.at_ms, user: last.user.0, name: last.name.clone() };
            found.extend(list.reactions);
        }
    };
    let all = pages(None).await;
    let place = |it: &ReactionEntry| (it.at_ms, it.user.0, it.name.clone());
    assert!(all.is_sorted_by(|a, b| place(a) < place(b)));
    assert_eq!(all.len(), 20);
    assert_eq!(
        (pages(Some("all")).await.len(), pages(Some("7")).await.len(), pages(Some("?")).await.len()),
        (10, 1, 0)
    );
    let own = store.reacting().own_reactions((partition, room), user, vec![1, 5]).await.unwrap().0;
    assert_eq!(own, (0..4).map(|n| (1, format!("{n}"))).collect::<Vec<_>>());
    for seq in [2, 1 << 60] {
        let list = store.reacting().reactions((partition, room), seq, None, <_>::default(), 3, vec![].into()).await;
        assert!(!list.unwrap().0.exists);
    }
}

async fn a_storm_is_counted_exactly(fixture: Fixture) {
    let [store, other] = fixture.replicas().await;
    let (partition, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let users = (0..5000).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    for (n, users) in users.chunks(500).enumerate() {
        let batch = users.iter().map(|user| react(&message, *user, "👍", true)).collect::<Vec<_>>();
        append_opened(if n % 2 == 0 { &*store } else { &*other }, &batch).await;
    }
    let page = store.read_log(partition, 0, ALL).await.unwrap();
    let folds = page.events.iter().filter(|event| event.data.change.is_some()).collect::<Vec<_>>();
    assert_eq!(folds.len(), 20);
    let reacted = folds.iter().flat_map(|event| &event.data.body.reacted);
    assert_eq!(reacted.map(|it| it.user).collect::<BTreeSet<_>>(), users.into_iter().collect());
    let page = store.list((partition, room), Window::Latest, ALL, vec![].into()).await.unwrap().0;
    assert_eq!((counts(&page.events[0]), page.head, page.last), (named([("👍", 5000)]), 21, 1));
}

async fn reads_fold_reactions_into_the_message(fixture: Fixture) {
    let store = fixture.open().await;
    let (partition, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    for n in 0..5 {
        reacted(append_one(&*store, react(&message, Uuid::now_v7(), &format!("{}", n % 2), true)).await);
    }
    let key = (partition, room);
    let (page, changed, _) = store.catch_up(key, 1, 1, ALL, vec![].into()).await.unwrap();
    assert_eq!((page.events.len(), changed.messages.len(), page.head), (0, 1, 6));
    let state = changed.messages[0].state.as_deref().unwrap();
    assert_eq!((state.revision, counts(&changed.messages[0])), (6, named([("0", 3), ("1", 2)])));
    assert_eq!(changed.messages[0].data.body.content, "text");
    // Every event of the room has its changes.
    let events = store.read_events(key, Window::After(1), ALL, vec![].into()).await.unwrap().0.events;
    assert!(events.iter().all(|event| event.data.body.reacted.len() == 1 && event.message.is_none()));
    assert_eq!(seqs(&events), [2, 3, 4, 5, 6]);
}

async fn each_event_has_the_reactions_after_it(fixture: Fixture) {
    let store = fixture.open().await;
    let (partition, room) = open_with(&*store, false, &[]).await;
    let message = message_in(&*store, room).await;
    let [ada, eve] = [0; 2].map(|_| Uuid::now_v7());
    for (user, name, on) in [(ada, "a", true), (eve, "b", true), (ada, "a", false), (eve, "b", false)] {
        append_one(&*store, react(&message, user, name, on)).await;
    }
    append_one(&*store, change(&message, message.data.sender, Op::Delete)).await;
    let page = store.read_log(partition, 0, ALL).await.unwrap();
    let reactions = page.events.iter().filter(|event| event.data.change.is_some_and(|change| change.op == Op::React));
    let seen = reactions.map(|event| {
        let message = event.message.as_deref().unwrap();
        assert_eq!(message.state.as_ref().unwrap().revision, event.seq);
        counts(message)
    });
    let expected = [named([("a", 1)]), named([("a", 1), ("b", 1)]), named([("b", 1)]), named([])];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}
