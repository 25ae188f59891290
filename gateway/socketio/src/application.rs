//! The trait that an application implements.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::time::Instant;

use crate::event::Event;
use crate::net::ClientAddress;
use crate::packet::Malformed;
use crate::session::Session;

/// An application of the server. It must implement [`open`](Self::open), [`connect`](Self::connect) and
/// [`event`](Self::event); every other method has a default.
///
/// The server calls these methods from the tasks that serve the clients, so a method must not block: it spawns a task
/// for work that waits. The calls for one session arrive in the order of its packets. The server calls
/// [`settled`](Self::settled) and [`tick`](Self::tick) between two packets.
pub trait Application: Send + Sync + Sized + 'static {
    /// The data that the application keeps for each client.
    type Client: Send + Sync + 'static;

    /// Whether a request may open or use a session, by its head. The main use is a check of `Origin`. The server
    /// answers 403 when this returns `false`.
    fn may_connect(&self, _head: &Parts) -> bool {
        true
    }

    /// Creates the data for a new session of a client at this address, from the headers of its first request. Returns
    /// it with the number of header bytes that it keeps. The server counts these bytes until the application calls
    /// [`Outbox::release`](crate::outbox::Outbox::release).
    fn open(&self, headers: &HeaderMap, address: ClientAddress) -> (Self::Client, usize);

    /// The client has sent CONNECT; `auth` is its JSON payload, or empty.
    /// <https://github.com/socketio/socket.io-protocol#connection-to-a-namespace>
    ///
    /// The application answers, now or later, with [`Session::accept`] or [`Session::refuse`]. It identifies the client
    /// with [`Registry::identify`](crate::Registry::identify). Until then, the client may send and leave unread at most
    /// 16 KiB together, and the server closes the session after
    /// [`connect_timeout`](crate::Config::connect_timeout). After DISCONNECT, a client may send CONNECT again.
    fn connect(self: &Arc<Self>, session: &Arc<Session<Self::Client>>, auth: &str);

    /// An event from a client that has sent CONNECT. It may arrive before the application has answered CONNECT.
    ///
    /// # Errors
    /// [`Malformed`] for an event that no conforming client sends. The server then closes the session with
    /// [`Ending::Malformed`](crate::Ending::Malformed).
    fn event(self: &Arc<Self>, session: &Arc<Session<Self::Client>>, event: Event<'_>) -> Result<(), Malformed>;

    /// The server has passed on all packets that arrived together. An application that batches events starts work here.
    fn settled(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) {}

    /// The client has sent DISCONNECT. It may connect again within the same session.
    fn left(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) {}

    /// Back pressure: while this returns `true`, the server reads nothing from the client's WebSocket. When it becomes
    /// `false`, the application must call [`Outbox::nudge`](crate::outbox::Outbox::nudge).
    fn is_paused(&self, _session: &Session<Self::Client>) -> bool {
        false
    }

    /// Back pressure for polling: completes when the server may read the client's next POST.
    fn resumed(&self, _session: &Session<Self::Client>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// When [`tick`](Self::tick) is due for the first time. The server calls this once, after the client is identified.
    fn due(&self, _client: &Self::Client) -> Option<Instant> {
        None
    }

    /// Does the work that is due, such as closing a session whose credentials have expired. Returns when it is due
    /// next.
    fn tick(self: &Arc<Self>, _session: &Session<Self::Client>) -> Option<Instant> {
        None
    }

    /// The server drains: the application warns the client. Completes when all events of the client are answered. The
    /// server waits for a bounded time (half the drain window; [`leave_within`](crate::Config::leave_within) for a
    /// session that another node proxies), then closes the session.
    fn leave(self: &Arc<Self>, _session: &Arc<Session<Self::Client>>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The memory limit for all clients is exceeded, and this client's owner holds the most. The application must
    /// release all bytes that it holds for the client. The server then closes the session.
    fn evicted(self: &Arc<Self>, _session: &Session<Self::Client>) {}

    /// The session has ended. The server calls this once for each session.
    fn closed(self: &Arc<Self>, _session: &Session<Self::Client>) {}
}
