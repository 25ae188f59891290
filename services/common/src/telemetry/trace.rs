//! Traces: what one request sets going, here and in other processes, as spans for a collector.
//!
//! A span that nobody will see is nothing: while no endpoint is set, or its trace is not sampled, there is no span, no context
//! that travels, no allocation and no look at the clock. The spans are not those of `tracing`, so the log never meets them.

mod batch;
mod carry;
pub(crate) mod export;
mod settings;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::OnceLock;

use http::HeaderMap;
use opentelemetry::trace::{Span as _, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

pub use batch::Batch;
pub use opentelemetry::trace::SpanKind as Kind;

/// Set once, when a collector is configured.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A span under way, or nothing. Clones are the same span; it ends with the last of them.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// A span that continues the trace that the headers name, and otherwise begins one. For the edge alone, and headers that a
    /// proxy of ours wrote: what lies behind the edge continues what was begun there.
    pub fn entry(kind: Kind, name: &'static str, headers: &HeaderMap) -> Self {
        match TRACER.get() {
            Some(_) => start(kind, name, &carry::from_headers(headers)),
            None => Self(None),
        }
    }

    /// A span that begins a trace and is linked to the one that the headers name, which a stranger may have written: whether it
    /// is sampled is decided here.
    pub fn linked_root(kind: Kind, name: &'static str, headers: &HeaderMap) -> Self {
        let span = Self::root(kind, name);
        if let Some(context) = &span.0 {
            let other = carry::from_headers(headers).span().span_context().clone();
            if other.is_valid() {
                context.span().add_link(other, Vec::new());
            }
        }
        span
    }

    /// A span that begins a trace.
    pub fn root(kind: Kind, name: &'static str) -> Self {
        start(kind, name, &Context::new())
    }

    /// The span of another process that the headers name, if its trace is sampled.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self(TRACER.get().map(|_| carry::from_headers(headers)).filter(is_sampled))
    }

    /// The span of another process that wrote this [`traceparent`](Self::traceparent).
    pub fn of_traceparent(text: &str) -> Self {
        let known = TRACER.get().filter(|_| !text.is_empty());
        Self(known.map(|_| carry::from_text(text)).filter(is_sampled))
    }

    /// The place of something that came with others in the call under way, and wrote this: below the call, where that is of
    /// the same trace.
    pub fn arrived(traceparent: &str) -> Self {
        let own = Self::of_traceparent(traceparent);
        if own.is_none() {
            return own;
        }
        let call = Self::current();
        let trace = |span: &Self| span.context().map(|context| context.trace_id());
        if trace(&own) == trace(&call) { call } else { own }
    }

    /// The span within which the caller runs.
    pub fn current() -> Self {
        Self(TRACER.get().map(|_| Context::current()).filter(Context::has_active_span))
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// A span below this one.
    pub fn child(&self, kind: Kind, name: &'static str) -> Self {
        match &self.0 {
            Some(context) => start(kind, name, context),
            None => Self(None),
        }
    }

    /// Names it anew.
    pub fn rename(&self, name: impl FnOnce() -> String) {
        if let Some(context) = &self.0 {
            context.span().update_name(name());
        }
    }

    /// Notes something about it.
    pub fn set<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Notes that it failed, and what kind of failure that was.
    pub fn fail(&self, kind: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind));
            context.span().set_status(Status::error(kind));
        }
    }

    /// Notes that another span, of whatever trace, is about the same.
    pub fn link(&self, other: &Self) {
        if let (Some(context), Some(other)) = (&self.0, other.context()) {
            context.span().add_link(other, Vec::new());
        }
    }

    /// Runs something within it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _current = self.0.clone().map(Context::attach);
        work()
    }

    /// Completes the future within it.
    pub async fn hold<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|task| self.within(|| future.as_mut().poll(task))).await
    }

    /// What names it to another process, as W3C Trace Context has it; empty where there is none.
    pub fn traceparent(&self) -> String {
        self.context().as_ref().map(carry::to_text).unwrap_or_default()
    }

    /// Puts what names it among the headers of a request.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            carry::to_headers(context, headers);
        }
    }

    /// The ids of its trace and of itself, as they are written.
    pub(super) fn ids(&self) -> Option<(String, String)> {
        self.context().map(|context| (context.trace_id().to_string(), context.span_id().to_string()))
    }

    fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|context| context.span().span_context().clone())
    }
}

fn is_sampled(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

fn start(kind: Kind, name: &'static str, parent: &Context) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let span = tracer.span_builder(name).with_kind(kind).start_with_context(tracer, parent);
    Span(span.is_recording().then(|| Context::new().with_span(span)))
}

#[cfg(test)]
mod tests;
