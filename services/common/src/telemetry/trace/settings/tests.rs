use super::*;

fn with(variables: &[(&str, &str)]) -> anyhow::Result<Option<Settings>> {
    Settings::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

#[test]
fn tracing_is_off_without_an_endpoint() {
    assert!(with(&[]).unwrap().is_none());
    assert!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().is_none());
    assert!(with(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
    assert!(with(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    assert_eq!(with(&[ENDPOINT]).unwrap().unwrap().endpoint.uri(), "http://collector:4317/");
    let both = with(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1")]).unwrap().unwrap();
    assert_eq!(both.endpoint.uri(), "http://traces:1/");
}

#[test]
fn invalid_values_are_errors_that_name_the_variable() {
    for (name, bad) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
    ] {
        let error = with(&[(name, bad), ENDPOINT]).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn samplers() {
    let of = |name, argument| format!("{:?}", sampler(name, argument).unwrap());
    assert_eq!(of(None, None), "ParentBased(TraceIdRatioBased(0.01))");
    assert_eq!(of(None, Some("0.5")), "ParentBased(TraceIdRatioBased(0.5))");
    assert_eq!(of(Some("parentbased_traceidratio"), None), "ParentBased(TraceIdRatioBased(1.0))");
    assert_eq!(of(Some("traceidratio"), Some("0.2")), "TraceIdRatioBased(0.2)");
    assert_eq!(of(Some("always_on"), Some("0.2")), "AlwaysOn");
}
