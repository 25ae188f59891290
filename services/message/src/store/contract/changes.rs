//! Changes of messages: who may make them, when they are refused, and their order.

use futures::future::join_all;

use super::*;

on_both!(
    each_change_has_its_rights,
    refusals_come_in_their_order,
    a_private_room_hides_its_messages_from_strangers,
    what_changes_nothing_is_not_appended,
    an_identity_names_one_act,
    repeats_come_before_rights_and_conditions,
    changes_of_one_batch_build_on_each_other,
    concurrent_edits_have_one_order,
    at_most_100_messages_are_pinned,
    a_closed_room_accepts_no_changes,
);

/// Creates a change by a user.
pub fn change(message: &Event, sender: Uuid, op: Op) -> EventData {
    let content = if op == Op::Edit { "edited" } else { "" };
    let change = Some(Change::new(message.seq, op));
    EventData { kind: Kind::Change, sender, change, ..new_message(message.data.room, None, content) }
}

/// Creates an edit by the author.
pub fn edit(message: &Event, content: &str) -> EventData {
    let mut data = change(message, message.data.sender, Op::Edit);
    data.body.content = content.into();
    data
}

pub async fn append_one(store: &dyn Store, data: EventData) -> Outcome {
    append_opened(store, &[data]).await.remove(0).unwrap()
}

pub async fn appended(store: &dyn Store, data: EventData) -> Event {
    match append_one(store, data).await {
        Outcome::Appended(event) => event,
        outcome => panic!("{outcome:?}"),
    }
}

/// Opens a room in which these users have roles.
pub async fn open_with(store: &dyn Store, private: bool, members: &[(Uuid, Role)]) -> RoomKey {
    let room = Uuid::now_v7();
    let key = (partition::of_room(room, PARTITIONS), room);
    let members = members.iter().map(|(user, role)| Member { user: *user, role: *role }).collect();
    store.open_room(key, private, members).await.unwrap();
    key
}

async fn each_change_has_its_rights(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, admin, member, other, key] = [0; 5].map(|_| Uuid::now_v7());
    let members = [(owner, Role::Owner), (admin, Role::Admin), (member, Role::Member)];
    let (_, room) = open_with(&*store, false, &members).await;
    let author = Uuid::now_v7();
    let moderated =
        |data: EventData| EventData { change: data.change.map(|it| Change { moderator: true, ..it }), ..data };
    let may = |op: Op, user: Uuid| match op {
        Op::Edit => user == author,
        Op::Delete => [author, owner, admin, key].contains(&user),
        Op::Pin | Op::Unpin => [owner, admin, key].contains(&user),
        Op::React => unreachable!("reactions have no rights of their own"),
    };
    for op in [Op::Edit, Op::Delete, Op::Pin, Op::Unpin] {
        for user in [author, owner, admin, member, other, key] {
            let message = EventData { sender: author, ..new_message(room, None, "text") };
            let message = appended(&*store, message).await;
            if op == Op::Unpin {
                appended(&*store, change(&message, owner, Op::Pin)).await;
            }
            let data = change(&message, user, op);
            let outcome = append_one(&*store, if user == key { moderated(data) } else { data }).await;
            if may(op, user) {
                assert!(matches!(outcome, Outcome::Appended(_)), "{op:?} by {user}: {outcome:?}");
            } else {
                assert_eq!(outcome, Outcome::Refused(Refusal::Forbidden), "{op:?} by {user}");
            }
        }
    }
}

async fn refusals_come_in_their_order(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let (_, room) = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    let message = appended(&*store, new_message(room, None, "text")).await;
    let system = EventData { kind: Kind::System, ..new_message(room, None, "") };
    let system = appended(&*store, system).await;
    let first_edit = appended(&*store, edit(&message, "better")).await;
    let refusal = async |data: EventData| match append_one(&*store, data).await {
        Outcome::Refused(refusal) => refusal,
        outcome => panic!("{outcome:?}"),
    };
    let of = |seq: u64| Event { seq, ..message.clone() };
    for seq in [first_edit.seq, first_edit.seq + 1, 1 << 60] {
        assert_eq!(refusal(edit(&of(seq), "x")).await, Refusal::NoMessage, "{seq}");
    }
    assert_eq!(refusal(change(&system, owner, Op::Delete)).await, Refusal::RoomEvent);
    let with = |data: EventData, target_id, unchanged_since| {
        let change = data.change.map(|change| Change { target_id, unchanged_since, ..change });
        EventData { change, ..data }
    };
    let (same, other) = (Some(message.data.id), Some(Uuid::now_v7()));
    // Only one of several reasons is returned.
    assert_eq!(refusal(with(change(&message, Uuid::now_v7(), Op::Pin), other, Some(1))).await, Refusal::Forbidden);
    assert_eq!(refusal(with(edit(&message, ""), other, Some(1))).await, Refusal::OtherMessage);
    assert_eq!(refusal(with(edit(&message, ""), same, Some(1))).await, Refusal::Empty);
    for op in [Op::Delete, Op::Pin] {
        assert_eq!(refusal(with(change(&message, owner, op), same, Some(2))).await, Refusal::Changed);
    }
    assert_eq!(refusal(with(edit(&message, "best"), same, Some(2))).await, Refusal::Changed);
    // Pins do not count as changes of the text.
    let pin = appended(&*store, with(change(&message, owner, Op::Pin), same, Some(first_edit.seq))).await;
    let best = appended(&*store, with(edit(&message, "best"), same, Some(first_edit.seq))).await;
    assert_eq!((pin.seq, best.seq), (4, 5));
    let deleted = appended(&*store, with(change(&message, owner, Op::Delete), None, Some(best.seq))).await;
    for data in [edit(&message, "undo"), edit(&message, ""), change(&message, owner, Op::Pin)] {
        assert_eq!(refusal(with(data, None, Some(1))).await, Refusal::Deleted);
    }
    assert_eq!(
        store.list((message.data.partition, room), Window::Latest, ALL, Readers::Moderator).await.unwrap().0.head,
        deleted.seq
    );
}

async fn a_private_room_hides_its_messages_from_strangers(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, author] = [Uuid::now_v7(), Uuid::now_v7()];
    let (partition, room) = open_with(&*store, true, &[(owner, Role::Owner), (author, Role::Member)]).await;
    let message = appended(&*store, EventData { sender: author, ..new_message(room, None, "text") }).await;
    for seq in [message.seq, 99] {
        let data = change(&Event { seq, ..message.clone() }, Uuid::now_v7(), Op::Delete);
        assert_eq!(append_one(&*store, data).await, Outcome::Hidden, "{seq}");
    }
    // An author who was removed may not edit any more.
    let access = AccessChange { removed: vec![author], private: true, ..AccessChange::default() };
    let body = Body { event: "memberLeft".into(), access: Some(access), ..Body::default() };
    appended(&*store, EventData { kind: Kind::System, body, ..new_message(room, None, "") }).await;
    assert_eq!(append_one(&*store, edit(&message, "late")).await, Outcome::Hidden);
    appended(&*store, change(&message, owner, Op::Delete)).await;
    let unopened = EventData { room: Uuid::now_v7(), ..edit(&message, "nowhere") };
    let unopened = EventData { partition: partition::of_room(unopened.room, PARTITIONS), ..unopened };
    assert_eq!(append_one(&*store, unopened).await, Outcome::Hidden);
    assert_eq!(store.room_heads(vec![(partition, room)]).await.unwrap().heads[0].seq, 3);
}

async fn what_changes_nothing_is_not_appended(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let (_, room) = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    let text = "Привет \"\\\n\u{1F375}";
    let message = appended(&*store, new_message(room, None, text)).await;
    let unchanged = async |data: EventData| match append_one(&*store, data).await {
        Outcome::Unchanged(message) => message,
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(unchanged(edit(&message, text)).await, message);
    assert_eq!(unchanged(change(&message, owner, Op::Unpin)).await, message);
    appended(&*store, edit(&message, "better")).await;
    let edited = unchanged(edit(&message, "better")).await;
    assert_eq!((edited.seq, edited.data.body.content.as_str()), (1, "better"));
    assert_eq!(edited.state.as_ref().map(|state| state.revision), Some(2));
    // Back to the first text is a change.
    appended(&*store, edit(&message, text)).await;
    appended(&*store, change(&message, owner, Op::Pin)).await;
    assert!(unchanged(change(&message, owner, Op::Pin)).await.state.unwrap().pinned);
    appended(&*store, change(&message, owner, Op::Delete)).await;
    for data in [change(&message, owner, Op::Delete), change(&message, owner, Op::Unpin)] {
        let deleted = unchanged(data).await;
        assert_eq!((deleted.data.body.content.as_str(), deleted.seq), ("", 1));
        let state = deleted.state.unwrap();
        assert_eq!((state.revision, state.pinned, state.deleted_by.unwrap().0), (5, false, owner));
    }
    assert_eq!(store.room_heads(vec![(message.data.partition, room)]).await.unwrap().heads[0].seq, 5);
}

async fn an_identity_names_one_act(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let (_, room) = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    let named = |data: EventData| EventData { sender: owner, client_id: client_id(Some("once"), data.id), ..data };
    let plain = |content: &str| EventData { sender: owner, ..new_message(room, None, content) };
    let [one, two] = [appended(&*store, plain("one")).await, appended(&*store, plain("two")).await];
    let first = appended(&*store, named(edit(&one, "better"))).await;
    // The same act is a repeat, whatever its text.
    let again = append_one(&*store, named(edit(&one, "best"))).await;
    let Outcome::Repeated(again) = again else { panic!("{again:?}") };
    assert_eq!((again.seq, again.data.id, again.data.change), (first.seq, first.data.id, first.data.change));
    assert_eq!(again.message.unwrap().data.body.content, "better");
    for other in [edit(&two, "better"), change(&one, owner, Op::Delete), change(&one, owner, Op::Pin), plain("text")] {
        assert_eq!(append_one(&*store, named(other)).await, Outcome::Refused(Refusal::OtherAct));
    }
    // An identity of a message names no change.
    let chosen = |data: EventData| EventData { client_id: client_id(Some("text"), data.id), ..data };
    appended(&*store, chosen(plain("three"))).await;
    assert_eq!(append_one(&*store, chosen(edit(&one, "x"))).await, Outcome::Refused(Refusal::OtherAct));
    // In one batch, too.
    let fresh = |data: EventData| EventData { sender: owner, client_id: client_id(Some("batch"), data.id), ..data };
    let batch = [fresh(edit(&two, "a")), fresh(edit(&two, "b")), fresh(edit(&one, "c")), fresh(plain("d"))];
    let outcomes = append_opened(&*store, &batch).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let (Outcome::Appended(event), Outcome::Repeated(repeat)) = (&outcomes[0], &outcomes[1]) else {
        panic!("{outcomes:?}")
    };
    assert_eq!(event, repeat);
    assert_eq!(outcomes[2..], [Outcome::Refused(Refusal::OtherAct), Outcome::Refused(Refusal::OtherAct)]);
}

async fn repeats_come_before_rights_and_conditions(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, author] = [Uuid::now_v7(), Uuid::now_v7()];
    let (_, room) = open_with(&*store, true, &[(owner, Role::Owner), (author, Role::Member)]).await;
    let message = appended(&*store, EventData { sender: author, ..new_message(room, None, "text") }).await;
    let mut first = edit(&message, "better");
    first.change = first.change.map(|change| Change { unchanged_since: Some(1), ..change });
    let event = appended(&*store, first.clone()).await;
    appended(&*store, change(&message, owner, Op::Delete)).await;
    let access = AccessChange { removed: vec![author], private: true, ..AccessChange::default() };
    let body = Body { event: "memberLeft".into(), access: Some(access), ..Body::default() };
    appended(&*store, EventData { kind: Kind::System, body, ..new_message(room, None, "") }).await;
    let outcome = append_one(&*store, first).await;
    let Outcome::Repeated(repeat) = outcome else { panic!("{outcome:?}") };
    assert_eq!((repeat.seq, repeat.position), (event.seq, event.position));
    let message = repeat.message.unwrap();
    assert_eq!((message.data.body.content.as_str(), message.state.as_ref().unwrap().revision), ("", 3));
}

async fn changes_of_one_batch_build_on_each_other(fixture: Fixture) {
    let store = fixture.open().await;
    let author = Uuid::now_v7();
    let (_, room) = open_with(&*store, false, &[(author, Role::Owner)]).await;
    let mine = |data: EventData| EventData { sender: author, ..data };
    let first = appended(&*store, mine(new_message(room, None, "first"))).await;
    let target = |seq| Event { seq, ..first.clone() };
    let batch = [
        mine(new_message(room, None, "second")),
        edit(&target(2), "second, edited"),
        edit(&target(2), "second, edited again"),
        edit(&target(2), "second, edited again"),
        mine(new_message(room, None, "third")),
        change(&target(2), author, Op::Delete),
        edit(&target(2), "too late"),
        change(&target(5), author, Op::Pin),
        edit(&target(1), "first, edited"),
    ];
    let outcomes = append_opened(&*store, &batch).await.into_iter().map(Result::unwrap);
    let seqs = outcomes.map(|outcome| match outcome {
        Outcome::Appended(event) => Ok(event.seq),
        Outcome::Unchanged(_) => Err(None),
        Outcome::Refused(refusal) => Err(Some(refusal)),
        outcome => panic!("{outcome:?}"),
    });
    let expected = [Ok(2), Ok(3), Ok(4), Err(None), Ok(5), Ok(6), Err(Some(Refusal::Deleted)), Ok(7), Ok(8)];
    assert_eq!(seqs.collect::<Vec<_>>(), expected);
    let texts = history(&*store, room)
        .await
        .iter()
        .map(|event| (event.seq, event.data.body.content.clone()))
        .collect::<Vec<_>>();
    assert_eq!(texts, [(1, "first, edited".into()), (2, String::new()), (5, "third".into())]);
}

async fn concurrent_edits_have_one_order(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let store = &*replicas[0];
    let (_, room) = open_with(store, false, &[]).await;
    let message = appended(store, new_message(room, None, "text")).await;
    let editors = (0..4).map(|editor| {
        let (store, message) = (replicas[editor % 2].clone(), message.clone());
        tokio::spawn(async move {
            for round in 0..15 {
                let batch =
                    [edit(&message, &format!("{editor} {round}")), new_message(message.data.room, None, "between")];
                for outcome in append_opened(&*store, &batch).await {
                    let Ok(Outcome::Appended(event)) = outcome else { panic!("{outcome:?}") };
                    // The message is in a state at or after the change.
                    let state = event.message.as_ref().map(|message| message.state.as_ref().unwrap().revision);
                    assert!(state.is_none_or(|revision| revision >= event.seq));
                }
            }
        })
    });
    join_all(editors).await.into_iter().for_each(|editor| editor.unwrap());
    let key = (message.data.partition, room);
    let (all, _) = store.read_events(key, Window::After(0), ALL, Readers::Moderator).await.unwrap();
    assert_eq!(seqs(&all.events), (1..=121).collect::<Vec<_>>());
    let newest = all.events.iter().rfind(|event| event.data.kind == Kind::Change).unwrap();
    let present = &all.events[0];
    assert_eq!(present.data.body.content, newest.data.body.content);
    assert_eq!(present.state.as_ref().unwrap().revision, newest.seq);
    let (versions, _) = store.versions(key, 1, Readers::Moderator).await.unwrap();
    assert_eq!(versions.versions.len(), 61);
    assert_eq!(versions.versions.last().unwrap().content, newest.data.body.content);
}

async fn at_most_100_messages_are_pinned(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = Uuid::now_v7();
    let (_, room) = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    let messages = append_new(&*store, &(0..101).map(|_| new_message(room, None, "x")).collect::<Vec<_>>()).await;
    let pins = messages.iter().map(|message| change(message, owner, Op::Pin)).collect::<Vec<_>>();
    let outcomes = append_opened(&*store, &pins).await;
    assert!(outcomes[..100].iter().all(|outcome| matches!(outcome, Ok(Outcome::Appended(_)))));
    assert_eq!(outcomes[100].as_ref().unwrap(), &Outcome::Refused(Refusal::TooManyPins));
    // A deletion ends a pin.
    appended(&*store, change(&messages[0], owner, Op::Delete)).await;
    appended(&*store, change(&messages[100], owner, Op::Pin)).await;
    let (page, _) = store.pins((messages[0].data.partition, room), Readers::Moderator).await.unwrap();
    assert_eq!(seqs(&page.events), [101].into_iter().chain((2..=100).rev()).collect::<Vec<_>>());
    assert!(page.events.iter().all(|message| message.state.as_ref().unwrap().pinned));
}

async fn a_closed_room_accepts_no_changes(fixture: Fixture) {
    let store = fixture.open().await;
    let (_, room) = open_with(&*store, false, &[]).await;
    let message = appended(&*store, new_message(room, None, "text")).await;
    let closing = EventData { kind: Kind::System, closes_room: true, ..new_message(room, None, "") };
    appended(&*store, closing).await;
    assert_eq!(append_one(&*store, edit(&message, "late")).await, Outcome::Hidden);
}
