//! Behaviour that the end-to-end tests do not show: links of a batch, and contexts of other processes.

use std::sync::Arc;

use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;

use super::*;

/// The ended spans of all tests in this process.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

fn exported() -> &'static Exported {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let exporter = Exported::default();
        // The default sampler: the caller decides about its own trace, and no trace that begins here is sampled.
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(settings::sampler(None, Some("0")).unwrap());
        let provider = provider.build();
        TRACER.get_or_init(|| provider.tracer("test"));
        std::mem::forget(provider);
        exporter
    })
}

fn ended(name: &str) -> Vec<SpanData> {
    exported().0.lock().iter().filter(|span| span.name == name).cloned().collect()
}

fn traceparent(trace: u8, flags: &str) -> String {
    format!("00-{}-00f067aa0ba902b7-{flags}", format!("{trace:02x}").repeat(16))
}

fn headers(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), traceparent.parse().unwrap())])
}

#[test]
fn callers_trace_and_sampling_decision_are_kept() {
    exported();
    let entry = Span::entry(Kind::Server, "entry", &headers(&traceparent(0xa1, "01")));
    assert!(entry.traceparent().starts_with("00-a1a1a1a1"));
    let onward = entry.child(Kind::Client, "onward");
    let mut carried = HeaderMap::new();
    onward.write_to(&mut carried);
    let there = Span::extract(&carried).child(Kind::Server, "there");
    drop((there, onward, entry));
    let ids = |name| ended(name).pop().map(|span| (span.span_context.span_id(), span.parent_span_id)).unwrap();
    let (entry, onward, there) = (ids("entry"), ids("onward"), ids("there"));
    assert_eq!((entry.1, onward.1, there.1), (SpanId::from_hex("00f067aa0ba902b7").unwrap(), entry.0, onward.0));

    // The sampling decision of a client that is not trusted is ignored.
    assert!(Span::linked_root(Kind::Server, "no", &headers(&traceparent(0xa3, "01"))).is_none());

    for unsampled in [traceparent(0xa2, "00"), "nonsense".into(), traceparent(0, "01"), "x".repeat(5000)] {
        assert!(Span::entry(Kind::Server, "no", &headers(&unsampled)).is_none(), "{unsampled}");
        assert!(
            Span::extract(&headers(&unsampled)).is_none() && Span::of_traceparent(&unsampled).is_none(),
            "{unsampled}"
        );
    }
    assert!(Span::root(Kind::Server, "no").is_none());
}

#[test]
fn unsampled_span_exports_nothing() {
    exported();
    let nothing = Span::default();
    assert!(nothing.child(Kind::Client, "no").is_none());
    let mut headers = HeaderMap::new();
    nothing.write_to(&mut headers);
    assert!(headers.is_empty() && nothing.traceparent().capacity() == 0);
    nothing.set("never", || -> i64 { panic!("an unsampled span evaluates nothing") });
    assert!(nothing.in_scope(Span::current).is_none());
    assert_eq!(Batch::begin("no", [&nothing; 3].into_iter()).0.capacity(), 0);
}

#[tokio::test]
async fn batch_belongs_to_the_first_trace_and_is_linked_from_others() {
    exported();
    let members = [String::new(), traceparent(0xb1, "01"), String::new(), traceparent(0xb2, "01")]
        .map(|text| Span::of_traceparent(&text));
    let batch = Batch::begin("batch", members.iter());
    let work = batch.lead().instrument(async { Span::current().child(Kind::Client, "work") }).await;
    assert!(batch.of(0).is_none() && batch.of(2).is_none() && batch.of(4).is_none());
    assert!(
        batch.of(1).unwrap().traceparent().starts_with("00-b1b1")
            && batch.of(3).unwrap().traceparent().starts_with("00-b2b2")
    );
    drop((work, batch));
    let spans = ended("batch");
    let of =
        |trace: &str| spans.iter().find(|span| span.span_context.trace_id().to_string().starts_with(trace)).unwrap();
    let lead = of("b1b1").span_context.clone();
    assert_eq!(ended("work").pop().unwrap().parent_span_id, lead.span_id());
    assert!(of("b1b1").links.is_empty());
    assert_eq!(of("b2b2").links.iter().map(|link| link.span_context.clone()).collect::<Vec<_>>(), [lead]);
}

#[test]
fn batch_item_is_a_child_of_its_call_within_one_trace() {
    exported();
    let call = Span::of_traceparent(&traceparent(0xc1, "01")).child(Kind::Server, "call");
    let (own, other) = (traceparent(0xc1, "01"), traceparent(0xc2, "01"));
    call.in_scope(|| {
        assert_eq!(Span::arrived(&own).traceparent(), call.traceparent());
        assert_eq!(Span::arrived(&other).traceparent(), other);
        assert!(Span::arrived("").is_none());
    });
}
