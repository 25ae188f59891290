//! Runs the lanes of a client: one task for each room with pending events, within the bounds of one socket and one
//! user.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::client::{MAX_SENDS, Socket};
use super::context::Chat;
use super::handle::handle;
use super::lanes::{Next, Pending};
use crate::turns::SendPermits;

/// Events that are handled together, with the permits of the socket and of its user if the events need permits.
type Work<'a> = (Vec<Pending>, Option<(SemaphorePermit<'a>, SendPermits)>);

/// Starts tasks for the lanes with events since the last call. Called after all packets that arrived together, so that
/// their sends share one append.
pub fn start_lanes(chat: &Arc<Chat>, socket: &Arc<Socket>) {
    let starting = socket.client.state().lanes.take_starting();
    for room in starting {
        tokio::spawn(work(chat.clone(), socket.clone(), room));
    }
}

async fn work(chat: Arc<Chat>, socket: Arc<Socket>, room: Uuid) {
    while let Some((events, permits)) = next(&socket, room).await {
        let size = events.iter().map(|event| event.size).sum();
        // Boxed, because thousands of lanes may wait for permits, and few have events in progress.
        Box::pin(handle(&chat, &socket, room, events)).await;
        drop(permits);
        socket.client.done(&socket.outbox, size);
    }
}

/// Returns the next events of a room: as many pending sends as permits allow, or one event of another kind. `None` when
/// the lane is empty and removed.
pub async fn next(socket: &Socket, room: Uuid) -> Option<Work<'_>> {
    let (client, outbox) = (&socket.client, &socket.outbox);
    loop {
        let deadline = {
            let mut state = client.state();
            match state.lanes.next(room) {
                Next::End => return None,
                Next::Free => return Some((state.lanes.take(room, 1), None)),
                Next::Bounded(deadline) => deadline,
            }
        };
        let mut permit = client.sends.acquire().await.ok()?;
        outbox.space().await;
        let _ = timeout_at(deadline, outbox.within_share("send")).await;
        let mut of_user = SendPermits::acquire(&outbox.share()).await;
        let mut state = client.state();
        let sends = state.lanes.together(room, MAX_SENDS.min(1 + client.sends.available_permits()));
        if sends == 0 {
            // The events were dropped meanwhile.
            continue;
        }
        let more = of_user.try_more(sends - 1);
        let together = match client.sends.try_acquire_many(more as u32) {
            Ok(others) => {
                permit.merge(others);
                1 + more
            }
            Err(_) => 1,
        };
        return Some((state.lanes.take(room, together), Some((permit, of_user))));
    }
}
