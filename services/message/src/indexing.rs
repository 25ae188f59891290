//! Brings the log into the index of messages. Each replica does so; the store gives each partition to one of them at a
//! time, and moves its position only after a whole page of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confab_common::Result;
use confab_common::clock::now_ms;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics::METRICS;
use crate::store::search::{IndexPage, Indexed};
use crate::store::{Event, FORMAT, Kind, Limit, Op, Store};
use crate::words::{of_room, of_sender, terms};

/// How often a replica looks for new events: a message is found within 1 s.
const INDEX_EVERY: Duration = Duration::from_millis(500);
/// Longest pause while the database fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Partitions that a replica holds at a time.
const PARTITIONS: u32 = 64;
/// The largest page. 64 KiB of a script without spaces have about 40,000 terms, which Postgres indexes well within the
/// time limit of a statement.
const PAGE: Limit = Limit { events: 500, bytes: 64 * 1024 };
/// Messages of deleted rooms in one step.
const FORGOTTEN: u32 = 500;
/// The longest pause after a page or a step while more work is to be done.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// The name of the event that closes a room.
const ROOM_DELETED: &str = "roomDeleted";

/// Indexes new events, again and again. After a failure the next attempt continues.
pub async fn run(store: Arc<dyn Store>) {
    let holder = Uuid::now_v7();
    let mut pause = INDEX_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match index_all(&*store, holder).await {
            Ok(()) => INDEX_EVERY,
            Err(error) => {
                if pause == INDEX_EVERY {
                    tracing::warn!(%error, "cannot index messages now; trying again");
                }
                (pause * 2).min(LONGEST_PAUSE)
            }
        };
        report(&*store).await;
    }
}

/// Indexes all events that are in the log now, and some of those that follow. A log of a newer format is left to newer
/// replicas. A partition that fails does not stop the others.
pub async fn index_all(store: &dyn Store, holder: Uuid) -> Result<()> {
    loop {
        if store.format().await? > FORMAT {
            return Ok(());
        }
        let (mut is_behind, mut outcome) = (false, Ok(()));
        for (partition, after) in store.searches().claim_unindexed(holder, PARTITIONS).await? {
            match index_page(store, partition, after).await {
                Ok(more) => is_behind |= more,
                Err(error) => outcome = Err(error),
            }
        }
        outcome?;
        // Pages of other work come between.
        let begun = Instant::now();
        if store.searches().forget_closed(FORGOTTEN).await? {
            is_behind = true;
            rest(begun).await;
        }
        if !is_behind {
            return Ok(());
        }
        report(store).await;
    }
}

/// Indexes the next page of a partition. Returns whether further events follow it.
async fn index_page(store: &dyn Store, partition: u32, after: u64) -> Result<bool> {
    let begun = Instant::now();
    let page = store.read_log(partition, after, PAGE).await?;
    let Some(up_to) = page.events.last().map(|event| event.position) else { return Ok(false) };
    let indexed = IndexPage { partition, after, up_to, ..of_events(&page.events) };
    let messages = indexed.messages.len() as u64;
    if store.searches().index(indexed).await? {
        METRICS.indexed.increment(messages);
    }
    let is_behind = up_to < page.head;
    if is_behind {
        rest(begun).await;
    }
    Ok(is_behind)
}

/// Waits as long as the work has taken: at most half of the time is used, so that appends go on as before.
async fn rest(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(LONGEST_REST)).await;
}

/// Reports how old the oldest event is that is not indexed.
async fn report(store: &dyn Store) {
    if let Ok(since) = store.searches().unindexed_since().await {
        let age = since.map_or(0, |since| (now_ms() - since).max(0));
        METRICS.index_lag.set(age as f64 / 1000.0);
    }
}

/// What the messages of a page are in the index: each in its present state, once.
fn of_events(events: &[Event]) -> IndexPage {
    let mut messages = BTreeMap::new();
    let mut closed = Vec::new();
    for event in events {
        let message = match event.data.kind {
            Kind::Message | Kind::File => event,
            // Reactions change no text, and their events do not have it.
            Kind::Change if event.data.change.is_some_and(|change| change.op == Op::React) => continue,
            Kind::Change => match event.message.as_deref() {
                Some(message) if matches!(message.data.kind, Kind::Message | Kind::File) => message,
                _ => continue,
            },
            Kind::System => {
                closed.extend((event.data.body.event == ROOM_DELETED).then_some(event.data.room));
                continue;
            }
        };
        messages.insert((message.data.room, message.seq), indexed(message));
    }
    IndexPage { messages: messages.into_values().collect(), closed, ..IndexPage::default() }
}

/// A message without words is not in the index.
fn indexed(message: &Event) -> Indexed {
    let data = &message.data;
    let mut terms = terms(&data.body.content);
    if !terms.is_empty() {
        terms.extend([of_room(data.room), of_sender(data.sender)]);
    }
    Indexed {
        room: data.room,
        seq: message.seq,
        sender: data.sender,
        created_at_ms: message.created_at_ms,
        terms: Vec::from_iter(terms).join(" "),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::store::{Body, Change, EventData};

    fn message(content: &str) -> Event {
        let body = Body { sender_username: "ada".into(), content: content.into(), ..Body::default() };
        let [room, id, sender] = [1, 2, 3].map(Uuid::from_u128);
        let (kind, client_id) = (Kind::Message, "i:2".into());
        let data =
            EventData { partition: 0, room, id, kind, sender, client_id, body, change: None, closes_room: false };
        Event::new(Arc::new(data), 1, 1, 0)
    }

    #[test]
    fn reactions_leave_a_message_in_the_index() {
        let [mut edited, mut reacted] = [Op::Edit, Op::React].map(|op| {
            let data = EventData { kind: Kind::Change, ..EventData::clone(&message("").data) };
            let change = Some(Change::new(1, op));
            Event::new(Arc::new(EventData { change, ..data }), 2, 2, 0)
        });
        for event in [&mut edited, &mut reacted] {
            event.give_message(message("present"));
        }
        assert_eq!(reacted.message.as_deref().unwrap().data.body.content, "");
        let terms = |events: &[Event]| of_events(events).messages.iter().map(|it| it.terms.clone()).collect::<Vec<_>>();
        let present = terms(&[message("present")]);
        assert_eq!(
            (terms(&[message("former"), edited.clone()]), terms(&[message("present"), reacted.clone()])),
            (present.clone(), present)
        );
        assert!(terms(&[reacted]).is_empty());
    }
}
