//! Work that is done once for many that asked for it.

use super::{Kind, Span};

/// The spans of one piece of work, one in the trace of each who asked. What the work does appears below the first of them,
/// and the others link to that one.
#[derive(Default)]
pub struct Batch(pub(super) Vec<Span>);

impl Batch {
    /// Begins a span below each that there is. Where there is none, this costs nothing.
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

    /// The span within which the work is to be done.
    pub fn lead(&self) -> Span {
        self.0.iter().find(|span| !span.is_none()).cloned().unwrap_or_default()
    }

    /// The span of the one who asked at that place.
    pub fn of(&self, index: usize) -> Option<&Span> {
        self.0.get(index).filter(|span| !span.is_none())
    }
}
