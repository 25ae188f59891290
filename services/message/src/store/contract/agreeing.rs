//! Both stores judge the same changes alike, and what they read is the fold of what they appended.

use std::collections::BTreeMap;

use super::*;

/// A sequence of numbers that looks random and is the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

struct Story {
    dice: Dice,
    room: Uuid,
    users: Vec<Uuid>,
    /// The ids of the events so far, by their `seq` from 1 on.
    ids: Vec<Uuid>,
}

impl Story {
    /// Returns the next message or change, often one that is refused.
    fn next(&mut self) -> EventData {
        let dice = &mut self.dice;
        let sender = dice.of(&self.users);
        let chosen = dice.below(60).to_string();
        let chosen = (dice.below(3) == 0).then_some(chosen.as_str());
        let content = dice.of(&["", "a", "b", "\"c\\"]);
        let app_data = dice.of(&["", "", "{}", r#"{"a":"b"}"#, r#"{"\"\\":1}"#]);
        let mut plain =
            EventData { sender, ..new_message(self.room, chosen, if content.is_empty() { "x" } else { content }) };
        if dice.below(4) == 0 {
            plain.body.data = app_data.into();
        }
        match dice.below(8) {
            0 | 1 => return plain,
            2 if dice.below(3) == 0 => return EventData { kind: Kind::System, ..plain },
            _ => plain.body.data.clear(),
        }
        let op = dice.of(&[Op::Edit, Op::Edit, Op::Edit, Op::Delete, Op::Pin, Op::Unpin, Op::React, Op::React]);
        // Often one of the first events, so that messages have many changes.
        let target = if dice.below(2) == 0 { dice.below(12) } else { dice.below(self.ids.len() as u64 + 3) };
        let known = self.ids.get((target as usize).wrapping_sub(1)).copied();
        let target_id = match dice.below(6) {
            0 => Some(Uuid::now_v7()),
            1 => known,
            _ => None,
        };
        let unchanged_since = (dice.below(3) == 0).then(|| target + dice.below(10));
        if op == Op::React {
            let name = dice.of(&["a", "B", "é", "👍", "\"", "\\"]).into();
            let reacted = Reacted { user: sender, username: "ada".into(), name, on: dice.below(3) > 0 };
            let change = Some(Change { target_id, ..Change::new(target, op) });
            let body = Body { content: String::new(), reacted: vec![reacted], ..plain.body };
            return EventData { kind: Kind::Change, change, body, client_id: client_id(None, plain.id), ..plain };
        }
        let app_data = if op == Op::Edit { app_data } else { "" };
        let keeps_text = !app_data.is_empty() && dice.below(2) == 0;
        let change = Change { target, op, target_id, unchanged_since, moderator: dice.below(10) == 0, keeps_text };
        let content = if op == Op::Edit && !keeps_text { content } else { "" };
        let body = Body { content: content.into(), data: app_data.into(), ..plain.body };
        EventData { kind: Kind::Change, change: Some(change), body, ..plain }
    }
}

/// Returns the event without its times.
fn timeless(event: &Event) -> Event {
    let mut event = event.clone();
    event.created_at_ms = 0;
    if let Some(state) = &mut event.state {
        state.edited_at_ms = state.edited_at_ms.map(|_| 0);
    }
    let data = Arc::make_mut(&mut event.data);
    // The log has only the act of a change.
    data.change = data.change.map(|change| Change::new(change.target, change.op));
    // Each store has its own id for the event of reactions.
    if data.change.is_some_and(|change| change.op == Op::React) {
        (data.id, data.client_id) = (Uuid::nil(), String::new());
    }
    event.message = event.message.map(|message| Arc::new(timeless(&message)));
    event
}

fn outcome(outcome: &Result<Outcome>) -> Outcome {
    let mut outcome = outcome.as_ref().unwrap().clone();
    if let Some(event) = outcome.event_mut() {
        *event = timeless(event);
    }
    outcome
}

/// What a store returns about a room.
async fn reads(store: &dyn Store, key: RoomKey, head: u64) -> Vec<(Vec<Event>, u64)> {
    let shown = |page: Page| (page.events.iter().map(timeless).collect(), page.last);
    let (limit, all) = (Limit { events: 7, bytes: u32::MAX }, Readers::Moderator);
    let mut reads = vec![shown(store.read_events(key, Window::After(0), ALL, all.clone()).await.unwrap().0)];
    reads.push(shown(store.read_log(key.0, 0, ALL).await.unwrap()));
    reads.push(shown(store.pins(key, all.clone()).await.unwrap().0));
    for seq in [0, head / 3, head / 2, head - 3, head] {
        for window in [Window::After(seq), Window::Before(seq), Window::Latest] {
            reads.push(shown(store.list(key, window, limit, all.clone()).await.unwrap().0));
        }
        for from in [0, seq / 2, seq.saturating_sub(3)] {
            let (page, changed, _) = store.catch_up(key, seq, from, limit, all.clone()).await.unwrap();
            reads.push(shown(page));
            reads.push((changed.messages.iter().map(timeless).collect(), changed.more.into()));
            let between = ChangedBetween { after: seq / 2, from, up_to: seq };
            let (_, changed, _) = store.changes(key, between, limit, all.clone()).await.unwrap();
            reads.push((changed.messages.iter().map(timeless).collect(), changed.more.into()));
        }
    }
    reads
}

/// The last edited text of a message, whether it is deleted and pinned, its revision, and its reactions.
type Folded = (String, bool, bool, u64, BTreeMap<String, u64>);

/// Folds the changes of a room in their order, as a client would.
fn fold(events: &[Event]) -> BTreeMap<u64, Folded> {
    let mut folded = BTreeMap::new();
    for event in events.iter().filter(|event| event.data.kind == Kind::Message) {
        folded.insert(event.seq, (String::new(), false, false, 0, BTreeMap::new()));
    }
    for event in events {
        let Some(change) = event.data.change else { continue };
        let message = folded.get_mut(&change.target).unwrap();
        match change.op {
            Op::Edit => message.0.clone_from(&event.data.body.content),
            Op::Delete => {
                (message.0, message.1, message.2) = (String::new(), true, false);
                message.4.clear();
            }
            Op::Pin => message.2 = true,
            Op::Unpin => message.2 = false,
            Op::React => {
                for reacted in &event.data.body.reacted {
                    let count = message.4.entry(reacted.name.clone()).or_default();
                    *count = if reacted.on { *count + 1 } else { *count - 1 };
                }
                message.4.retain(|_, count| *count > 0);
            }
        }
        message.3 = event.seq;
    }
    folded
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_judge_alike() {
    let fixtures = [Fixture::postgres().await, Fixture::sqlite().await];
    let stores = [fixtures[0].open().await, fixtures[1].open().await];
    let room = rooms_in(2).next().unwrap();
    let users = (0..5).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let roles = [Role::Owner, Role::Admin, Role::Member, Role::Member];
    let members = users.iter().zip(roles).map(|(user, role)| Member { user: *user, role }).collect::<Vec<_>>();
    for store in &stores {
        store.open_room((2, room), true, members.clone()).await.unwrap();
    }
    let mut story = Story { dice: Dice(7), room, users, ids: Vec::new() };
    let mut seen = BTreeMap::<_, usize>::new();
    for _ in 0..500 {
        let size = 1 + story.dice.below(6);
        let batch = (0..size).map(|_| story.next()).collect::<Vec<_>>();
        let [one, two] = [append_opened(&*stores[0], &batch).await, append_opened(&*stores[1], &batch).await];
        for ((one, two), data) in one.iter().zip(&two).zip(&batch) {
            let (one, two) = (outcome(one), outcome(two));
            assert_eq!(one, two, "{data:?}");
            if let Outcome::Appended(event) | Outcome::Reacted(event, _) = &one
                && event.seq as usize > story.ids.len()
            {
                story.ids.resize(event.seq as usize, Uuid::nil());
                story.ids[event.seq as usize - 1] = event.data.id;
            }
            *seen.entry(format!("{one:?}").chars().take(22).collect::<String>()).or_default() += 1;
        }
    }
    let head = story.ids.len() as u64;
    let [one, two] = [reads(&*stores[0], (2, room), head).await, reads(&*stores[1], (2, room), head).await];
    assert_eq!(one, two);
    // Each outcome has occurred, except too many pins and names.
    assert!(seen.len() == 13 && head > 100, "{seen:?}");

    let events = &one[0].0;
    for (seq, (text, is_deleted, is_pinned, revision, counts)) in fold(events) {
        let message = &events[seq as usize - 1];
        let state = message.state.clone();
        assert_eq!(state.as_ref().map_or(0, |state| state.revision), revision, "{message:?}");
        assert_eq!(state.as_ref().is_some_and(|state| state.pinned), is_pinned, "{message:?}");
        assert_eq!(state.as_ref().is_some_and(|state| state.deleted_by.is_some()), is_deleted, "{message:?}");
        let reactions = state.iter().flat_map(|state| state.reactions.clone());
        assert_eq!(reactions.map(|it| (it.name, it.count)).collect::<BTreeMap<_, _>>(), counts, "{message:?}");
        if is_deleted || state.is_some_and(|state| state.edited_at_ms.is_some()) {
            assert_eq!(message.data.body.content, text);
        }
    }
}
