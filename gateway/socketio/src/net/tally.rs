//! Counts what is held for a request: its body while it arrives, and its answer until the connection has taken it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::address::ClientAddress;
use super::wire::Answer;
use crate::budget::{Budget, Held, Holder, SMALL};

/// Counts for one request; it is in the request's extensions.
#[derive(Clone)]
pub struct Tally(Arc<Inner>);

struct Inner {
    budget: Arc<Budget>,
    address: ClientAddress,
    answer: Answer,
    /// The head: parts of it, or of the connection's buffer around it, may remain until the request is answered.
    _head: Held,
}

/// In a response's extensions: its body is shared by all, so it is not counted for one.
#[derive(Clone, Copy)]
pub struct SharedBody;

impl Tally {
    /// Counts for the client at this address, from whose request a head of this many bytes has arrived.
    pub fn new(budget: Arc<Budget>, address: ClientAddress, answer: Answer, head: usize) -> Self {
        let head = Held::of(budget.clone(), Holder::Address(address), Arc::downgrade(answer.wire()) as _).with(head);
        Self(Arc::new(Inner { budget, address, answer, _head: head }))
    }

    /// The answer to the request.
    pub fn answer(&self) -> &Answer {
        &self.0.answer
    }

    /// What is held for all clients.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }

    /// The holder when the user is not known.
    pub fn address(&self) -> Holder {
        Holder::Address(self.0.address)
    }

    /// Counts for this holder.
    pub fn hold(&self, holder: Holder) -> Held {
        Held::of(self.0.budget.clone(), holder, Arc::downgrade(self.0.answer.wire()) as _)
    }

    /// Counts each part of the response from when the connection buffers it until it is written. A [`Holder`] in the response's
    /// extensions is charged, else the address.
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
