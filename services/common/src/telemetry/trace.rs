//! Traces: the work that one request causes, in this and in other processes, as spans for a collector.
//!
//! An unsampled span costs nothing. While no endpoint is set, or the trace is not sampled, there is no span, no context
//! to propagate, no allocation and no reading of the clock. These spans are not spans of `tracing`, so they never
//! appear in the log.

mod batch;
pub(crate) mod export;
mod propagation;
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

/// A span in progress, or no span. Clones are the same span, which ends when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Starts a span that continues the trace in the headers, or begins a trace. Only for the edge, and only for
    /// headers from the operator's proxy. Services behind the edge continue its traces.
    pub fn entry(kind: Kind, name: &'static str, headers: &HeaderMap) -> Self {
        match TRACER.get() {
            Some(_) => start(kind, name, &propagation::from_headers(headers)),
            None => Self(None),
        }
    }

    /// Starts a trace whose first span links to the span in the headers. A client that is not trusted may have written
    /// the headers, so sampling is decided here.
    pub fn linked_root(kind: Kind, name: &'static str, headers: &HeaderMap) -> Self {
        let span = Self::root(kind, name);
        if let Some(context) = &span.0 {
            let other = propagation::from_headers(headers).span().span_context().clone();
            if other.is_valid() {
                context.span().add_link(other, Vec::new());
            }
        }
        span
    }

    /// Starts a span that begins a trace.
    pub fn root(kind: Kind, name: &'static str) -> Self {
        start(kind, name, &Context::new())
    }

    /// Extracts another process's span from the headers, if its trace is sampled.
    pub fn extract(headers: &HeaderMap) -> Self {
        Self(TRACER.get().map(|_| propagation::from_headers(headers)).filter(is_sampled))
    }

    /// Returns the span of the process that wrote this [`traceparent`](Self::traceparent).
    pub fn of_traceparent(text: &str) -> Self {
        let known = TRACER.get().filter(|_| !text.is_empty());
        Self(known.map(|_| propagation::from_text(text)).filter(is_sampled))
    }

    /// Returns the parent of an item that has this `traceparent` and arrived in a batch in the current call. The parent
    /// is the call's span if both belong to one trace, otherwise the span in `traceparent`.
    pub fn arrived(traceparent: &str) -> Self {
        let own = Self::of_traceparent(traceparent);
        if own.is_none() {
            return own;
        }
        let call = Self::current();
        let trace = |span: &Self| span.context().map(|context| context.trace_id());
        if trace(&own) == trace(&call) { call } else { own }
    }

    pub fn current() -> Self {
        Self(TRACER.get().map(|_| Context::current()).filter(Context::has_active_span))
    }

    /// Returns whether there is no span.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub fn child(&self, kind: Kind, name: &'static str) -> Self {
        match &self.0 {
            Some(context) => start(kind, name, context),
            None => Self(None),
        }
    }

    pub fn rename(&self, name: impl FnOnce() -> String) {
        if let Some(context) = &self.0 {
            context.span().update_name(name());
        }
    }

    pub fn set<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Marks the span as failed, with the kind of failure.
    pub fn fail(&self, kind: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind));
            context.span().set_status(Status::error(kind));
        }
    }

    /// Links to another span, of any trace.
    pub fn link(&self, other: &Self) {
        if let (Some(context), Some(other)) = (&self.0, other.context()) {
            context.span().add_link(other, Vec::new());
        }
    }

    /// Runs `work` with this span as the current span.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _current = self.0.clone().map(Context::attach);
        work()
    }

    /// Runs the future with this span as the current span.
    pub async fn instrument<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|task| self.in_scope(|| future.as_mut().poll(task))).await
    }

    /// Returns the W3C Trace Context with which another process can continue the trace; empty without a span.
    pub fn traceparent(&self) -> String {
        self.context().as_ref().map(propagation::to_text).unwrap_or_default()
    }

    /// Adds the W3C Trace Context to the headers of a request.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            propagation::to_headers(context, headers);
        }
    }

    /// Returns the ids of the trace and of the span, as text.
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
