//! The one trait between the server and an application.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::time::Instant;

use crate::event::Event;
use crate::packet::Malformed;
use crate::session::Session;

/// An application of the server. Only [`connect`](Self::connect) and [`event`](Self::event) must be written.
///
/// The server calls it from the tasks that serve the clients: a call must return soon, and spawns a task for anything that
/// waits. Calls for one session come in the order of its packets, those of [`settled`](Self::settled) and
/// [`tick`](Self::tick) between two packets.
pub trait Application: Send + Sync + Sized + 'static {
    /// What the application keeps for each client.
    type Client: Send + Sync + 'static;

    /// Whether a page or program may open or use a session, by the head of its request; for `Origin` above all.
    fn may_connect(&self, _head: &Parts) -> bool {
        true
    }

    /// A client for a new session, from the headers of its first request, and how many bytes of them it keeps. The server
    /// counts these until the application releases them from the session's outbox.
    fn open(&self, headers: &HeaderMap) -> (Self::Client, usize);

    /// The client asks to be connected; `auth` is JSON, or empty. The application answers, now or later, with
    /// [`Session::accept`] or [`Session::refuse`], and makes the client known by `Registry::identify`: until then it may
    /// send and leave unread no more than 16 KiB, and has `connect_timeout` for it. A client that has left by DISCONNECT
    /// may ask again.
    fn connect(self: &Arc<Self>, session: &Arc<Session<Self::Client>>, auth: &str);

    /// An event from a client that has asked to be connected, perhaps before the application has answered.
    ///
    /// # Errors
    /// When no conforming client sends it: the server closes the session.
    fn event(self: &Arc<Self>, session: &Arc<Session<Self::Client>>, event: Event<'_>) -> Result<(), Malformed>;

    /// All packets that arrived together have been handed over.
    fn settled(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) {}

    /// The client has left by DISCONNECT, and may connect again.
    fn left(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) {}

    /// Back pressure: whether the server should read nothing more from the client now. Whenever this becomes `false`, the
    /// application must nudge the session's outbox.
    fn is_paused(&self, _session: &Session<Self::Client>) -> bool {
        false
    }

    /// Completes when more may be read from the client.
    fn resumed(&self, _session: &Session<Self::Client>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// When [`tick`](Self::tick) is due for the first time; asked once, when the client has been identified.
    fn due(&self, _client: &Self::Client) -> Option<Instant> {
        None
    }

    /// Does what is due at that time, such as ending a session whose credentials have expired; returns the next time.
    fn tick(self: &Arc<Self>, _session: &Session<Self::Client>) -> Option<Instant> {
        None
    }

    /// The server drains: the client should be warned. Completes when all its events are answered; the server waits for a
    /// bounded time, then closes the session.
    fn leave(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// All clients together hold too much, most of it for this client's owner: whatever the application holds for the client
    /// must be released. The server then closes the session.
    fn evicted(self: &Arc<Self>, _session: &Session<Self::Client>) {}

    /// The session is over.
    fn closed(self: &Arc<Self>, _session: &Session<Self::Client>) {}
}
