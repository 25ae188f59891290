//! Counts the bytes held for a request: its head, its body while it arrives, and its answer until the connection has
//! sent it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::address::ClientAddress;
use super::wire::Answer;
use crate::budget::{Budget, Held, Holder, SMALL};

/// Counts the bytes of one request in the memory limit of all clients. An HTTP server puts it into the extensions of
/// the request, and passes the response through [`count`](Self::count).
#[derive(Clone)]
pub struct Tally(Arc<Inner>);

struct Inner {
    budget: Arc<Budget>,
    address: ClientAddress,
    answer: Answer,
    /// The head, which may stay in the connection's buffer until the request is answered.
    _head: Held,
}

/// Marks a response, in its extensions, whose body all clients share. Its bytes are not counted for one client.
#[derive(Clone, Copy)]
pub struct SharedBody;

impl Tally {
    /// Starts to count for the client at this address. `head` is the length of the request's head in bytes.
    pub fn new(budget: Arc<Budget>, address: ClientAddress, answer: Answer, head: usize) -> Self {
        let head = Held::of(budget.clone(), Holder::Address(address), Arc::downgrade(answer.wire()) as _).with(head);
        Self(Arc::new(Inner { budget, address, answer, _head: head }))
    }

    /// The answer to the request.
    pub fn answer(&self) -> &Answer {
        &self.0.answer
    }

    /// The memory limit of all clients.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }

    /// The holder of the bytes while the owner is not known: the client's address.
    pub fn address(&self) -> Holder {
        Holder::Address(self.0.address)
    }

    /// Creates a counter for bytes of this request that are charged to `holder`.
    pub fn hold(&self, holder: Holder) -> Held {
        Held::of(self.0.budget.clone(), holder, Arc::downgrade(self.0.answer.wire()) as _)
    }

    /// Counts each part of the response of more than 4 KiB while the connection buffers it. The bytes are charged to
    /// the [`Holder`] in the response's extensions, or else to the client's address.
    pub fn count(self, mut response: Response) -> Response {
        let holder = response.extensions_mut().remove().unwrap_or(self.address());
        let is_shared = response.extensions().get::<SharedBody>().is_some();
        if is_shared || response.body().size_hint().exact().is_some_and(|bytes| bytes <= SMALL as u64) {
            return response;
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                frame.map_data(|data| match data.len() {
                    0..=SMALL => data,
                    bytes => Bytes::from_owner(Counted { data, _held: self.hold(holder).with(bytes) }),
                })
            }))
        })
    }
}

/// A part of a response.
struct Counted {
    data: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
