//! A lane per room: one operation at a time, in the order of arrival.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// The lanes of the rooms with an operation in flight.
#[derive(Default)]
// Locked to take or return a lane, never across an await.
pub struct Lanes(Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>);

/// The right to use a room's lane, until it is dropped.
pub struct Lane<'a> {
    lanes: &'a Lanes,
    room: Uuid,
    lane: Arc<tokio::sync::Mutex<()>>,
    entered: Option<OwnedMutexGuard<()>>,
}

impl Lanes {
    /// Waits until the room's lane is free.
    pub async fn enter(&self, room: Uuid) -> Lane<'_> {
        let lane = self.0.lock().entry(room).or_default().clone();
        // Made before the wait, so that a dropped caller returns the lane too.
        let mut lane = Lane { lanes: self, room, lane, entered: None };
        lane.entered = Some(lane.lane.clone().lock_owned().await);
        lane
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.entered = None;
        let mut lanes = self.lanes.0.lock();
        // The table's reference and this one: no other caller waits.
        if Arc::strong_count(&self.lane) == 2 {
            lanes.remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn one_operation_of_a_room_at_a_time() {
        let lanes = Lanes::default();
        let (tea, coffee) = (Uuid::now_v7(), Uuid::now_v7());
        let first = lanes.enter(tea).await;
        let mut left = Box::pin(lanes.enter(tea));
        let mut second = Box::pin(lanes.enter(tea));
        assert!(poll!(&mut left).is_pending() && poll!(&mut second).is_pending());
        drop(lanes.enter(coffee).await);
        drop(left);
        drop(first);
        drop(second.await);
        assert!(lanes.0.lock().is_empty(), "unused lanes are removed");
    }
}
