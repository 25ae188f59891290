//! Works on a client's lanes: one task for each room with waiting events, within the bounds on one client and one user.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::client::{MAX_SENDS, Socket};
use super::context::Chat;
use super::handle::handle;
use super::lanes::{Next, Pending};
use crate::turns::SendPermits;

/// Events that are handled together, with the permits of the socket and of its user, where those are required.
type Work<'a> = (Vec<Pending>, Option<(SemaphorePermit<'a>, SendPermits)>);

/// Starts handling the events that have arrived since the last call: sends that arrived together go to the log
/// together.
pub fn start_lanes(chat: &Arc<Chat>, socket: &Arc<Socket>) {
    let starting = socket.client.state().lanes.take_starting();
    for room in starting {
        tokio::spawn(work(chat.clone(), socket.clone(), room));
    }
}

async fn work(chat: Arc<Chat>, socket: Arc<Socket>, room: Uuid) {
    while let Some((events, permits)) = next(&socket, room).await {
        let size = events.iter().map(|event| event.size).sum();
        // Boxed: thousands of lanes may wait for their turn, few have events under way.
        Box::pin(handle(&chat, &socket, room, events)).await;
        drop(permits);
        socket.client.done(&socket.outbox, size);
    }
}

/// The next events of a room, once those before are done: all queued sends, as far as permits allow, or one other
/// event. `None` ends the room's lane.
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
