//! A trace collector: it accepts OTLP over gRPC and stores the received spans.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::wait::eventually;

/// Time limit for a span to arrive.
const SPAN_LIMIT: Duration = Duration::from_secs(20);

pub struct Collector {
    port: u16,
    kept: Arc<Mutex<Kept>>,
    /// Ends the serving thread: tests share a collector, but each test has its own runtime.
    _end: oneshot::Sender<()>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    /// Everything received, as text.
    text: String,
}

/// An exported span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The service that exported it.
    pub service: String,
    /// The process of that service.
    pub instance: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    /// The parent span; empty for a root.
    pub parent: String,
    /// The linked spans.
    pub links: Vec<String>,
    pub attributes: HashMap<String, String>,
}

struct Service(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock();
        let _ = writeln!(kept.text, "{request:?}");
        for of_process in request.resource_spans {
            let process = attributes(of_process.resource.map(|resource| resource.attributes).unwrap_or_default());
            let named = |key: &str| process.get(key).cloned().unwrap_or_default();
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.spans.extend(spans.map(|span| Span {
                service: named("service.name"),
                instance: named("service.instance.id"),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                attributes: attributes(span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts a collector on a free port.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kept = Arc::<Mutex<Kept>>::default();
        let server = Server::builder().add_service(TraceServiceServer::new(Service(kept.clone())));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let incoming = TcpIncoming::from(TcpListener::from_std(listener)?);
                // After the request to end, no further span is accepted.
                tokio::select! {
                    served = server.serve_with_incoming(incoming) => served.map_err(anyhow::Error::from),
                    _ = ended => Ok(()),
                }
            })
        });
        Ok(Self { port, kept, _end: end })
    }

    /// Returns settings with which programs export every trace to this collector without delay.
    pub fn settings(&self) -> Vec<(String, String)> {
        let settings = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("OTEL_TRACES_SAMPLER", "always_on".into()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".into()),
        ];
        settings.map(|(name, value)| (name.to_string(), value)).into()
    }

    /// Returns everything received so far, as text.
    pub fn text(&self) -> String {
        self.kept.lock().text.clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.kept.lock().spans.clone()
    }

    pub fn trace(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// Waits until the received spans satisfy a condition.
    ///
    /// # Errors
    /// When they never do; the message contains `what`, and the spans.
    pub async fn until<T>(&self, what: &str, condition: impl Fn(&[Span]) -> Option<T>) -> anyhow::Result<T> {
        let found = eventually(what, SPAN_LIMIT, async || condition(&self.spans())).await;
        found.with_context(|| self.spans().iter().map(|span| format!("{span:?}\n")).collect::<String>())
    }
}

/// Returns the path of each span of a trace from its root: `service name > service name > …`.
pub fn paths(trace: &[Span]) -> Vec<String> {
    let by_id = trace.iter().map(|span| (span.id.as_str(), span)).collect::<HashMap<_, _>>();
    let path = |span: &Span| {
        let mut names = vec![format!("{} {}", span.service, span.name)];
        let mut above = by_id.get(span.parent.as_str());
        while let Some(span) = above {
            names.push(format!("{} {}", span.service, span.name));
            above = by_id.get(span.parent.as_str());
        }
        names.reverse();
        names.join(" > ")
    };
    let mut paths = trace.iter().map(path).collect::<Vec<_>>();
    paths.sort();
    paths
}

fn attributes(list: Vec<KeyValue>) -> HashMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
