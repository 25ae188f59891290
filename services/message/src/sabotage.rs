//! Faults for test builds only: dying at the worst moment, and breaking promises on purpose to show that the checker
//! notices.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::clock::now_ms;
use confab_common::failpoint::hit;
use uuid::Uuid;

use crate::batch::Answer;
use crate::publish::Hints;
use crate::store::{Draft, Event, Outcome, Store};

/// Whatever follows this character in an event's identity is not shown.
pub const UNSEEN: char = '\u{1f}';

/// Runs before a batch goes to the store.
pub async fn before_append(store: &dyn Store, hints: &Hints, mut drafts: Vec<Arc<Draft>>) -> Vec<Arc<Draft>> {
    if !drafts.is_empty() && hit("skip-repeat-check") {
        // Gives every event a new identity that looks like the old one.
        let other = |draft: &mut Arc<Draft>| Arc::make_mut(draft).client_id.push_str(&format!("{UNSEEN}{}", Uuid::new_v4().simple()));
        drafts.iter_mut().for_each(other);
    }
    if !drafts.is_empty() && hit("publish-before-commit") {
        hints.publish(foretold(store, &drafts).await.iter().map(|answer| (answer, None)));
    }
    if !drafts.is_empty() {
        hit("before-commit");
    }
    drafts
}

/// Runs between COMMIT and publishing.
pub fn after_append(answers: &[Option<Answer>]) {
    if answers.iter().flatten().any(|answer| matches!(answer, Ok((_, Outcome::Appended(_))))) {
        hit("after-commit");
    }
}

/// The answers that the batch will get if nothing intervenes.
async fn foretold(store: &dyn Store, drafts: &[Arc<Draft>]) -> Vec<Answer> {
    let rooms = drafts.iter().map(|draft| (draft.partition, draft.room)).collect::<Vec<_>>();
    let (Ok(heads), Ok(room_heads)) = (store.heads().await, store.room_heads(rooms).await) else { return Vec::new() };
    let mut positions = heads.heads.iter().copied().collect::<HashMap<_, _>>();
    let mut seqs = room_heads.heads.iter().map(|head| (head.room, head.seq)).collect::<HashMap<_, _>>();
    let created_at_ms = now_ms();
    let mut next = |draft: &Arc<Draft>| {
        let (position, seq) = (positions.entry(draft.partition).or_default(), seqs.entry(draft.room).or_default());
        *position += 1;
        *seq += 1;
        let event = Event { draft: draft.clone(), position: *position, seq: *seq, created_at_ms };
        Ok((heads.epoch, Outcome::Appended(event)))
    };
    drafts.iter().map(&mut next).collect()
}
