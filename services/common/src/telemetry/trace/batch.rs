//! Spans of work that serves many requests at once.

use super::{Kind, Span};

/// The spans of one piece of work: one span in the trace of each request. The work's own spans are children of the
/// first span, and the other spans link to the first.
#[derive(Default)]
pub struct Batch(pub(super) Vec<Span>);

impl Batch {
    /// Starts a child span of each parent. Costs nothing without parents.
    pub fn begin<'a>(name: &'static str, parents: impl Iterator<Item = &'a Span>) -> Self {
        let mut spans = Vec::new();
        let mut lead: Option<Span> = None;
        for (index, parent) in parents.enumerate().filter(|(_, parent)| !parent.is_none()) {
            let span = parent.child(Kind::Internal, name);
            match &lead {
                Some(lead) => span.link(lead),
                None => lead = Some(span.clone()),
            }
            spans.resize_with(index, Span::default);
            spans.push(span);
        }
        Self(spans)
    }

    /// Returns the span to run the work in.
    pub fn lead(&self) -> Span {
        self.0.iter().find(|span| !span.is_none()).cloned().unwrap_or_default()
    }

    /// Returns the span of the request with this index.
    pub fn of(&self, index: usize) -> Option<&Span> {
        self.0.get(index).filter(|span| !span.is_none())
    }
}
