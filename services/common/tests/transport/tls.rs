//! TLS between programs, and calls that a caller's role permits.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use confab_common::config::CallsConfig;
use confab_common::grpc::{self, Call, Peer, PeerNames, Role, Security, Services, Transport};
use confab_common::process::Process;
use confab_common::testing::Authority;
use futures::future::{Ready, ready};
use http::{Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

const APPEND: &str = "/confab.message.v1.MessageService/Append";
const READ_LOG: &str = "/confab.message.v1.MessageService/ReadLog";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Bound on waits for a connection or an answer.
const STEP_LIMIT: Duration = Duration::from_secs(8);
/// The promised time until changed files are used.
const REREAD_LIMIT: Duration = Duration::from_secs(15);

/// A message service whose every method succeeds. It counts the calls.
#[derive(Clone, Default)]
struct Log(Arc<AtomicU64>);

impl Log {
    fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl NamedService for Log {
    const NAME: &'static str = "confab.message.v1.MessageService";
}

impl Service<Request<Body>> for Log {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        let peer = grpc::caller(&tonic::Request::from_http(request));
        let roles = Role::ALL.into_iter().filter(|role| peer.is(*role)).map(Role::name).collect::<Vec<_>>();
        let mut answer = Status::ok("").into_http();
        answer.headers_mut().insert("roles", roles.join(" ").parse().expect("a header"));
        ready(Ok(answer))
    }
}

/// A server on its own port, until it is dropped.
struct Served {
    log: Log,
    address: SocketAddr,
    _serving: AbortOnDropHandle<anyhow::Result<()>>,
}

impl Served {
    async fn start(config: &CallsConfig) -> Self {
        let security = Security::open(config, Some(Role::Message)).unwrap();
        security.watch_files();
        let process = Process::with(security);
        process.readiness.started();
        let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
        let log = Log::default();
        let routes = Routes::new(log.clone());
        let serving = tokio::spawn(async move { grpc::serve(&process, address, STEP_LIMIT, routes).await });
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
        Self { log, address, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Returns a new transport of a program with these settings.
    fn called_by(&self, config: &CallsConfig) -> Transport {
        let security = Security::open(config, None).unwrap();
        security.connect(Role::Message, &format!("https://{}", self.address)).unwrap()
    }
}

fn message(authority: &Authority) -> CallsConfig {
    authority.calls("DNS:message.confab")
}

/// Makes a call; returns its code and the roles that the service saw.
async fn call_seen(transport: &Transport, path: &str) -> (Code, String) {
    let mut request = Request::post(path).header("content-type", "application/grpc").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Call::within(STEP_LIMIT));
    let answer = transport.clone().oneshot(request).await.unwrap();
    let roles = answer.headers().get("roles").map_or("", |roles| roles.to_str().unwrap()).to_owned();
    (Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()), roles)
}

async fn call(transport: &Transport, path: &str) -> Code {
    call_seen(transport, path).await.0
}

#[tokio::test]
async fn roles_in_certificates_decide_which_calls_are_accepted() {
    let authority = Authority::new();
    let own = authority.calls("DNS:message.confab,URI:spiffe://example.org/ns/chat/sa/confab-message");
    let served = Served::start(&own).await;
    for (names, append, read) in [
        ("DNS:gateway.confab", Code::Ok, Code::Ok),
        ("URI:spiffe://example.org/ns/chat/sa/confab-gateway", Code::Ok, Code::Ok),
        ("URI:spiffe://other.example/ns/chat/sa/confab-gateway", Code::PermissionDenied, Code::PermissionDenied),
        ("DNS:room.confab", Code::Ok, Code::PermissionDenied),
        ("DNS:auth.confab", Code::PermissionDenied, Code::PermissionDenied),
        ("DNS:room.confab,DNS:gateway.confab", Code::Ok, Code::Ok),
    ] {
        let transport = served.called_by(&authority.calls(names));
        assert_eq!((call(&transport, APPEND).await, call(&transport, READ_LOG).await), (append, read), "{names}");
    }
    let transport = served.called_by(&authority.calls("DNS:gateway.confab,DNS:file.confab"));
    assert_eq!(call_seen(&transport, APPEND).await, (Code::Ok, "gateway file".into()));
    assert_eq!(call(&transport, "/confab.message.v1.MessageService/Newer").await, Code::Unimplemented);
}

#[tokio::test]
async fn a_certificate_without_a_role_allows_health_checks_only() {
    let authority = Authority::new();
    let served = Served::start(&message(&authority)).await;
    // A name that only the caller itself maps to a role.
    let peers = PeerNames::parse("gateway=monitor.example.org").ok();
    let transport = served.called_by(&CallsConfig { peers, ..authority.calls("DNS:monitor.example.org") });
    assert_eq!(call(&transport, APPEND).await, Code::PermissionDenied);
    assert_eq!(call(&transport, "/other.Service/Call").await, Code::Unimplemented);
    assert_eq!(served.log.calls(), 0);
    // An empty request is malformed, but it reaches the health service.
    assert!(
        ![Code::PermissionDenied, Code::Unimplemented, Code::Unavailable].contains(&call(&transport, HEALTH).await)
    );

    let peers = PeerNames::parse("gateway=bot.example.org,gateway=gateway.confab").ok();
    let served = Served::start(&CallsConfig { peers: peers.clone(), ..message(&authority) }).await;
    let transport = served.called_by(&CallsConfig { peers, ..authority.calls("DNS:bot.example.org") });
    assert_eq!(call(&transport, READ_LOG).await, Code::Ok);
}

#[tokio::test]
async fn callers_without_a_valid_certificate_are_rejected() {
    let (authority, other) = (Authority::new(), Authority::new());
    let served = Served::start(&message(&authority)).await;
    // A certificate of another authority.
    let mut stranger = other.calls("DNS:gateway.confab");
    stranger.tls_ca_file = Some(authority.certificate());
    let begun = Instant::now();
    assert_eq!(call(&served.called_by(&stranger), APPEND).await, Code::Unavailable);
    assert!(begun.elapsed() < STEP_LIMIT, "the caller knows at once that nothing was done");

    // A certificate that expires at the end of this second.
    let mut expiring = authority.calls("DNS:gateway.confab");
    let (certificate, key) = authority.issue_for("DNS:gateway.confab", 0);
    (expiring.tls_cert_file, expiring.tls_key_file) = (Some(certificate), Some(key));
    let refused = async {
        while call(&served.called_by(&expiring), APPEND).await == Code::Ok {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(STEP_LIMIT, refused).await.expect("an expired certificate is rejected");

    // No certificate. The client's handshake completes, and then the server ends the connection.
    let calls = served.log.calls();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("message.confab").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let ended = timeout(STEP_LIMIT, stream.read_u8()).await.expect("the server ends the connection");
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    assert_eq!(served.log.calls(), calls);
}

#[tokio::test]
async fn a_connection_ends_when_the_certificate_of_the_caller_expires() {
    let authority = Authority::new();
    let served = Served::start(&message(&authority)).await;
    let mut expiring = authority.calls("DNS:gateway.confab");
    let transport = loop {
        // It expires at the end of this second, perhaps before the first call.
        let (certificate, key) = authority.issue_for("DNS:gateway.confab", 0);
        (expiring.tls_cert_file, expiring.tls_key_file) = (Some(certificate), Some(key));
        let transport = served.called_by(&expiring);
        if call(&transport, APPEND).await == Code::Ok {
            break transport;
        }
    };
    let refused = async {
        while call(&transport, APPEND).await == Code::Ok {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(STEP_LIMIT, refused).await.expect("the connection from before the expiry has ended");
}

#[tokio::test]
async fn a_server_with_another_role_or_authority_receives_no_call() {
    let (authority, other) = (Authority::new(), Authority::new());
    let served = Served::start(&message(&authority)).await;
    let gateway = authority.calls("DNS:gateway.confab");
    let url = format!("https://{}", served.address);
    let room = Security::open(&gateway, None).unwrap().connect(Role::Room, &url).unwrap();
    assert_eq!(call(&room, "/confab.room.v1.RoomService/GetRoom").await, Code::Unavailable);
    let deceived = CallsConfig { tls_ca_file: Some(other.certificate()), ..gateway.clone() };
    assert_eq!(call(&served.called_by(&deceived), APPEND).await, Code::Unavailable);
    assert_eq!(served.log.calls(), 0);
    assert_eq!(call(&served.called_by(&gateway), APPEND).await, Code::Ok);
}

#[tokio::test]
async fn new_connections_use_changed_files() {
    let (old, new) = (Authority::new(), Authority::new());
    let (server, client) = (message(&old), old.calls("DNS:gateway.confab"));
    let served = Served::start(&server).await;
    let security = Security::open(&client, Some(Role::Gateway)).unwrap();
    security.watch_files();
    let connect = || security.connect(Role::Message, &format!("https://{}", served.address)).unwrap();
    let connected = connect();
    assert_eq!(call(&connected, APPEND).await, Code::Ok);

    for (config, names) in [(&server, "DNS:message.confab"), (&client, "DNS:gateway.confab")] {
        let (certificate, key) = new.issue(names);
        fs::copy(certificate, config.tls_cert_file.as_ref().unwrap()).unwrap();
        fs::copy(key, config.tls_key_file.as_ref().unwrap()).unwrap();
        // Both programs share the file of authorities, which was that of the old authority.
        fs::copy(new.certificate(), config.tls_ca_file.as_ref().unwrap()).unwrap();
    }
    // A program that has only the new files.
    let newcomer = new.calls("DNS:gateway.confab");
    let used = async {
        while call(&served.called_by(&newcomer), APPEND).await != Code::Ok {
            sleep(Duration::from_millis(100)).await;
        }
        while call(&connect(), APPEND).await != Code::Ok {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(REREAD_LIMIT, used).await.expect("both programs use the new files");
    assert_eq!(call(&connected, APPEND).await, Code::Ok, "connections made before stay");
}

#[tokio::test]
async fn callers_without_tls_are_rejected_at_once_unless_allowed() {
    let authority = Authority::new();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let served = Served::start(&message(&authority)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&preface).await.unwrap();
    let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
    ended.expect("the server ends the connection long before the time limit of a handshake").ok();

    // During a migration to TLS, a service accepts both.
    let served = Served::start(&CallsConfig { insecure_grpc: true, ..message(&authority) }).await;
    let plain = grpc::connect(&format!("http://{}", served.address)).unwrap();
    assert_eq!(call_seen(&plain, READ_LOG).await, (Code::Ok, "gateway auth room message file".into()));
    let transport = served.called_by(&authority.calls("DNS:room.confab"));
    assert_eq!((call(&transport, APPEND).await, call(&transport, READ_LOG).await), (Code::Ok, Code::PermissionDenied));
}

#[tokio::test]
async fn roles_are_enforced_in_process() {
    let log = Log::default();
    let message = grpc::in_process(log.clone());
    let services = |role| Services { message: message.clone(), ..Services::none() }.called_by(role).message;
    assert_eq!(call_seen(&services(Role::Room), APPEND).await, (Code::Ok, "room".into()));
    assert_eq!(call(&services(Role::Room), READ_LOG).await, Code::PermissionDenied);
    assert_eq!(call(&services(Role::Auth), APPEND).await, Code::PermissionDenied);
    assert_eq!(log.calls(), 1);
    assert_eq!(call_seen(&services(Role::Gateway), READ_LOG).await, (Code::Ok, "gateway".into()));
    assert!(Peer::any().is(Role::Auth) && !Peer::default().is(Role::Auth));
}

#[tokio::test]
async fn service_without_a_certificate_listens_on_loopback_only() {
    let beyond = SocketAddr::from(([0, 0, 0, 0], 0));
    let process = Process::new();
    let serving = timeout(STEP_LIMIT, grpc::serve(&process, beyond, STEP_LIMIT, Routes::default())).await;
    let error = serving.expect("the service refuses to listen").unwrap_err().to_string();
    assert!(error.starts_with("CONFAB_LISTEN is 0.0.0.0:0, beyond this machine"), "{error}");
}
