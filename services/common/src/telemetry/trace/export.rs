//! Exports spans to a collector.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use uuid::Uuid;

use super::TRACER;
use super::settings::Settings;

/// Longest time that a shutdown waits for the collector to accept the last spans.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Starts exporting spans if the environment names a collector. Must be called once, within the runtime.
///
/// # Errors
/// When a variable has an unsupported value.
pub(crate) fn start(program: &str) -> anyhow::Result<()> {
    let Some(settings) = Settings::read(|name| std::env::var(name).ok())? else { return Ok(()) };
    let channel = settings.endpoint.connect_lazy();
    // Spans are dropped while the collector is unreachable.
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    let provider = SdkTracerProvider::builder().with_sampler(settings.sampler).with_resource(resource(program));
    let provider = PROVIDER.get_or_init(|| provider.with_batch_exporter(exporter).build());
    TRACER.get_or_init(|| provider.tracer("confab"));
    Ok(())
}

/// Exports the remaining spans, and waits for the collector for at most `within`.
pub(crate) async fn finish(within: Duration) {
    let Some(provider) = PROVIDER.get() else { return };
    let within = within.min(FLUSH_LIMIT);
    // The export blocks its thread.
    let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
    if !matches!(tokio::time::timeout(within, flushed).await, Ok(Ok(Ok(())))) {
        tracing::warn!("the collector did not accept the last spans in time");
    }
}

/// Describes this process: the service name from the environment or else the program's name, and an id that
/// distinguishes replicas.
fn resource(program: &str) -> Resource {
    let given = Resource::builder().build();
    let named =
        |key: &'static str| given.get(&Key::new(key)).filter(|name| !name.as_str().starts_with("unknown_service"));
    let own = [
        ("service.name", program.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Uuid::new_v4().to_string()),
    ];
    let own = own.into_iter().filter(|(key, _)| named(key).is_none()).map(|(key, value)| KeyValue::new(key, value));
    Resource::builder().with_attributes(own.collect::<Vec<_>>()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_is_named_after_the_program() {
        let resource = resource("confab-tea");
        assert_eq!(resource.get(&Key::new("service.name")), Some("confab-tea".into()));
        assert!(resource.get(&Key::new("service.instance.id")).is_some_and(|id| id.as_str().parse::<Uuid>().is_ok()));
    }
}
