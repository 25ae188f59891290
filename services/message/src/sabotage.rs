//! A store that breaks the log's promises on purpose, only in test builds: the checker must detect each violation, and
//! a crash at the worst moment must lose no data.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::clock::now_ms;
use confab_common::{Result, failpoint};
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use crate::batch::Answer;
use crate::publish::Hints;
use crate::store::{
    AppendError, Appended, ChangeStore, Changed, ChangedBetween, Erased, Event, EventData, Head, Heads, LastTimes,
    Limit, Mark, MarkStore, Marked, Marker, Member, Notify, Opened, Outcome, Page, Reaction, Readers, Receipt,
    Reopening, RoomAccess, RoomHead, RoomKey, Store, Versions, Window, delegated,
};

/// Marks the suffix of an identity that makes an event new although it is a repeat. The suffix is removed from what the
/// store returns.
const UNSEEN: char = '\u{1f}';
/// Marks the suffix of an access event that makes its private room public in the log.
const EXPOSED: char = '\u{1e}';
/// Follows [`EXPOSED`] when the event changed the visibility.
const CHANGED: char = 'v';

/// Delegates to the inner store, except at its failpoints.
pub struct Sabotaged {
    store: Arc<dyn Store>,
    hints: Hints,
}

impl Sabotaged {
    pub fn over(store: Arc<dyn Store>, hints: Hints) -> Arc<dyn Store> {
        Arc::new(Self { store, hints })
    }

    /// Returns the answers that the batch will get if nothing intervenes.
    async fn expected_answers(&self, batch: &[Arc<EventData>]) -> Vec<Answer> {
        let rooms = batch.iter().map(|data| (data.partition, data.room)).collect::<Vec<_>>();
        let (Ok(heads), Ok(room_heads)) = (self.store.heads().await, self.store.room_heads(rooms).await) else {
            return Vec::new();
        };
        let mut positions = heads.heads.iter().copied().collect::<HashMap<_, _>>();
        let mut seqs = room_heads.heads.iter().map(|head| (head.room, head.seq)).collect::<HashMap<_, _>>();
        let created_at_ms = now_ms();
        let mut next = |data: &Arc<EventData>| {
            let (position, seq) = (positions.entry(data.partition).or_default(), seqs.entry(data.room).or_default());
            *position += 1;
            *seq += 1;
            let event = Event::new(data.clone(), *position, *seq, created_at_ms);
            Ok((heads.epoch, Outcome::Appended(event)))
        };
        batch.iter().map(&mut next).collect()
    }

    /// Gives the message of a change the text before its last edit.
    async fn unfold(&self, event: &mut Event) {
        let (room, Some(message)) = ((event.data.partition, event.data.room), &mut event.message) else { return };
        let Ok((texts, _)) = self.store.versions(room, message.seq, Readers::Moderator).await else { return };
        if let [.., earlier, _] = &texts.versions[..] {
            Arc::make_mut(&mut Arc::make_mut(message).data).body.content.clone_from(&earlier.content);
        }
    }
}

/// Returns the same event with a new identity that looks like the old one.
fn disguised(data: &Arc<EventData>) -> Arc<EventData> {
    let mut data = EventData::clone(data);
    data.client_id.push_str(&format!("{UNSEEN}{}", Uuid::new_v4().simple()));
    Arc::new(data)
}

/// Returns the same event; if it changes a private room, the room is public in the log from then on. Clients and
/// gateways still see the change of a private room.
fn exposed(data: &Arc<EventData>) -> Arc<EventData> {
    let mut data = EventData::clone(data);
    if let Some(change) = data.body.access.as_mut().filter(|change| change.private) {
        data.client_id.push(EXPOSED);
        data.client_id.extend(change.changes_visibility.then_some(CHANGED));
        (change.private, change.changes_visibility) = (false, true);
    }
    Arc::new(data)
}

/// Changes the reactions to a message.
fn misreact(reactions: &mut Vec<Reaction>) {
    if failpoint!("reaction-lost") {
        reactions.pop();
    }
    if failpoint!("reaction-doubled") {
        reactions.iter_mut().for_each(|reaction| reaction.count += 1);
    }
}

/// Restores an event, and the message that it changes, if they were appended in another form.
fn reveal(event: &mut Event) {
    if let Some(message) = &mut event.message {
        reveal(Arc::make_mut(message));
    }
    event.state.iter_mut().for_each(|state| misreact(&mut state.reactions));
    let Some(length) = event.data.client_id.find([UNSEEN, EXPOSED]) else { return };
    let data = Arc::make_mut(&mut event.data);
    let suffix = data.client_id.split_off(length);
    if let (Some(changed), Some(change)) = (suffix.strip_prefix(EXPOSED), &mut data.body.access) {
        (change.private, change.changes_visibility) = (true, changed.starts_with(CHANGED));
    }
}

fn revealed(page: Result<Page>) -> Result<Page> {
    page.map(|mut page| {
        page.events.iter_mut().for_each(reveal);
        page
    })
}

impl Store for Sabotaged {
    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        async move {
            let mut others = failpoint!("skip-repeat-check").then(|| batch.iter().map(disguised).collect::<Vec<_>>());
            if failpoint!("skip-membership") {
                others = Some(batch.iter().map(exposed).collect());
            }
            // The message of a change is not known before its commit.
            if batch.iter().all(|data| data.change.is_none()) && failpoint!("publish-before-commit") {
                self.hints.publish(self.expected_answers(batch).await.iter().map(|answer| (answer, None)));
            }
            let _ = failpoint!("before-commit");
            let mut appended = self.store.append(others.as_deref().unwrap_or(batch), created_at_ms).await?;
            if appended.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Appended(_))) {
                let _ = failpoint!("after-commit");
            }
            appended.outcomes.iter_mut().filter_map(Outcome::event_mut).for_each(reveal);
            if failpoint!("fold-out-of-order") {
                for event in appended.outcomes.iter_mut().filter_map(Outcome::event_mut) {
                    self.unfold(event).await;
                }
            }
            Ok(appended)
        }
        .boxed()
    }

    fn list(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        async move {
            let (page, access) = self.store.list(room, window, limit, readers).await?;
            Ok((revealed(Ok(page))?, access))
        }
        .boxed()
    }

    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        self.store.read_log(partition, after, limit).map(revealed).boxed()
    }

    fn marks(&self) -> &dyn MarkStore {
        self
    }

    delegated!();
}

impl MarkStore for Sabotaged {
    fn mark(&self, mut marks: Vec<Mark>, few: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<Option<Marked>>>> {
        if failpoint!("marker-moved-backwards") {
            marks.iter_mut().for_each(|mark| mark.back = true);
        }
        self.store.marks().mark(marks, few, now_ms)
    }

    fn markers(&self, user: Uuid, rooms: Option<Vec<RoomKey>>) -> BoxFuture<'_, Result<Vec<Marker>>> {
        async move {
            let mut markers = self.store.marks().markers(user, rooms).await?;
            if failpoint!("ordinal-counts-edits") {
                markers.iter_mut().for_each(|marker| marker.unread = marker.head - marker.seq);
            }
            Ok(markers)
        }
        .boxed()
    }

    fn receipts(
        &self,
        room: RoomKey,
        most: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Vec<Receipt>, RoomAccess)>> {
        self.store.marks().receipts(room, most, readers)
    }

    fn set_notify(&self, room: RoomKey, user: Uuid, notify: Notify) -> BoxFuture<'_, Result<bool>> {
        self.store.marks().set_notify(room, user, notify)
    }
}

impl ChangeStore for Sabotaged {
    fn read_events(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        async move {
            let (page, access) = self.store.read_events(room, window, limit, readers).await?;
            Ok((revealed(Ok(page))?, access))
        }
        .boxed()
    }

    fn catch_up(
        &self,
        room: RoomKey,
        after: u64,
        from: u64,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        async move {
            let (page, mut changed, access) = self.store.catch_up(room, after, from, limit, readers).await?;
            changed.messages.iter_mut().for_each(reveal);
            Ok((revealed(Ok(page))?, changed, access))
        }
        .boxed()
    }

    fn changes(
        &self,
        room: RoomKey,
        between: ChangedBetween,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
        async move {
            let (page, mut changed, access) = self.store.changes(room, between, limit, readers).await?;
            changed.messages.iter_mut().for_each(reveal);
            Ok((page, changed, access))
        }
        .boxed()
    }

    fn versions(&self, room: RoomKey, seq: u64, readers: Readers) -> BoxFuture<'_, Result<(Versions, RoomAccess)>> {
        self.store.versions(room, seq, readers)
    }

    fn pins(&self, room: RoomKey, readers: Readers) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        async move {
            let (page, access) = self.store.pins(room, readers).await?;
            Ok((revealed(Ok(page))?, access))
        }
        .boxed()
    }

    fn erase_deleted(&self, messages: u32, edits: u32) -> BoxFuture<'_, Result<Erased>> {
        self.store.erase_deleted(messages, edits)
    }
}
