//! The destination and the sampling of traces: the standard `OTEL_…` variables.

use std::time::Duration;

use anyhow::{Context, bail};
use opentelemetry_sdk::trace::Sampler;
use tonic::transport::Endpoint;

/// The default share of sampled traces, of those that begin here: 1 %.
const RATIO: f64 = 0.01;
/// The default time limit for an answer of the collector.
const DEFAULT_ANSWER_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection to the collector is pinged, and the time limit for the answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

#[derive(Debug)]
pub(super) struct Settings {
    pub endpoint: Endpoint,
    pub sampler: Sampler,
}

impl Settings {
    /// Reads the settings. Returns `None` without an endpoint.
    ///
    /// # Errors
    /// When a variable has an unsupported value.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        // A setting for traces takes precedence over the setting for all signals.
        let either = |rest: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{rest}"), format!("OTEL_EXPORTER_OTLP_{rest}")];
            names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
        };
        if variable("OTEL_SDK_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => bail!("OTEL_TRACES_EXPORTER must be otlp or none"),
        }
        let Some((name, url)) = either("ENDPOINT") else { return Ok(None) };
        let endpoint = endpoint(&url).with_context(|| format!("{name} must be of the form http://host:port"))?;
        if let Some((name, protocol)) = either("PROTOCOL")
            && protocol != "grpc"
        {
            bail!("{name} must be grpc");
        }
        let timeout = match either("TIMEOUT") {
            Some((name, text)) => {
                Duration::from_millis(text.parse().ok().with_context(|| format!("{name} must be milliseconds"))?)
            }
            None => DEFAULT_ANSWER_LIMIT,
        };
        let sampler =
            sampler(variable("OTEL_TRACES_SAMPLER").as_deref(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref())?;
        Ok(Some(Self { endpoint: endpoint.timeout(timeout), sampler }))
    }
}

fn endpoint(url: &str) -> Option<Endpoint> {
    let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.port().is_some())?;
    let endpoint = Endpoint::from(uri).connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(KEEPALIVE.0);
    Some(endpoint.keep_alive_timeout(KEEPALIVE.1))
}

pub(super) fn sampler(name: Option<&str>, argument: Option<&str>) -> anyhow::Result<Sampler> {
    let below_parent = |root| Sampler::ParentBased(Box::new(root));
    let ratio = |usual| match argument {
        None => Ok(Sampler::TraceIdRatioBased(usual)),
        Some(text) => {
            let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.map(Sampler::TraceIdRatioBased).context("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")
        }
    };
    Ok(match name {
        None => below_parent(ratio(RATIO)?),
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => Sampler::AlwaysOff,
        Some("traceidratio") => ratio(1.0)?,
        Some("parentbased_always_on") => below_parent(Sampler::AlwaysOn),
        Some("parentbased_always_off") => below_parent(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => below_parent(ratio(1.0)?),
        Some(other) => bail!("OTEL_TRACES_SAMPLER: {other} is not supported"),
    })
}

#[cfg(test)]
mod tests;
