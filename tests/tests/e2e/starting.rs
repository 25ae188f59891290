//! The errors of programs that cannot start or reach their dependencies.

use std::path::Path;
use std::time::Duration;

use confab_tests::daemon::Daemon;
use confab_tests::embedded::Embedded;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::wait::eventually;
use tokio::time::timeout;

/// Returns the URL in a variable of the test run, with another server or database.
fn url(variable: &str, change: impl FnOnce(&str) -> String) -> String {
    change(&std::env::var(variable).unwrap_or_else(|_| panic!("{variable}; `make test` sets it")))
}

/// Checks that the program fails with this error and leaves nothing behind.
async fn fails(line: &str, why: &str) {
    let guard = Guard::new("starting").unwrap();
    let mut words = line.split(' ');
    let mut command = tokio::process::Command::new(programs().join(words.next().unwrap()));
    command.args(words).env_clear().current_dir(guard.directory()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output())
        .await
        .unwrap_or_else(|_| panic!("{line} does not end"))
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(why) && !error.contains("hunter2"), "{line}: {error}");
    assert_eq!(std::fs::read_dir(guard.directory()).unwrap().count(), 0, "{line} leaves something behind");
}

#[tokio::test]
async fn wrong_settings_are_reported_before_any_side_effect() {
    for (line, why) in [
        ("confab-gateway --message-url=nowhere", "--message-url"),
        ("confab-gateway --bus=amqp://u:hunter2@h", "CONFAB_BUS"),
        ("confab-file --objects=s3://key:hunter2@b", "CONFAB_OBJECTS must be s3://bucket"),
        ("confab-file --max-file-size=100MiB", "must be a number of bytes"),
        ("confab --cluster-key=hunter2", "CONFAB_CLUSTER_KEY must be at least 32 random bytes"),
        ("confab --bus=redis://u:hunter2@h", "CONFAB_CLUSTER_KEY is not set"),
        ("confab-message --bus=redis://u:hunter2@h", "CONFAB_CLUSTER_KEY is not set"),
        ("confab-gateway --max-connections=0", "at least 1"),
        ("confab-gateway --ping-interval=0s", "must not be zero"),
        ("confab-room --postgres-connections=0", "at least 1"),
        ("confab-auth --auth-store=postgres://u:hunter2@h:none/d", "CONFAB_AUTH_STORE is not a valid postgres:// URL"),
        (
            "confab-room --room-store=postgres://u:hunter2@h/d?pool_max_conns=1",
            "its option `pool_max_conns`: is not supported",
        ),
        ("confab-file --ca-file=/nowhere/ca.pem", "CONFAB_CA_FILE: cannot read /nowhere/ca.pem"),
        (
            "confab-room --listen=0.0.0.0:0",
            "CONFAB_TLS_CERT_FILE, CONFAB_TLS_KEY_FILE and CONFAB_TLS_CA_FILE are not set",
        ),
        ("confab-room --tls-cert-file=tls.crt", "also set CONFAB_TLS_KEY_FILE and CONFAB_TLS_CA_FILE"),
        (
            "confab-room --tls-cert-file=/nowhere/tls.crt --tls-key-file=x --tls-ca-file=x",
            "CONFAB_TLS_CERT_FILE: cannot read /nowhere/tls.crt",
        ),
        (
            "confab-gateway --message-url=https://127.0.0.1:1 --admin-listen=127.0.0.1:0 --listen=127.0.0.1:0",
            "CONFAB_MESSAGE_URL: https://127.0.0.1:1: https:// needs CONFAB_TLS_CERT_FILE",
        ),
        ("confab-gateway --peers=gateway", "must be a role"),
        ("confab-gateway --bus=redis+sentinel://u:hunter2@h", "redis+sentinel://host:26379"),
        ("confab-message renew-epoch", "there is no log in ./data/message.db"),
        ("confab renew-epoch --data-dir=elsewhere", "there is no log in elsewhere/message.db"),
    ] {
        fails(line, why).await;
    }
}

/// Returns the error output of a program that exits at once.
async fn refusal(work: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(programs().join("confab"));
    command.env_clear().envs(variables.iter().copied()).current_dir(work).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output()).await.expect("must end in time").unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn second_start_reports_the_cause_first() {
    let embedded = Embedded::start(&[]).await.unwrap();
    let port = embedded.url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
    let same = [("CONFAB_LISTEN", &*listen), ("CONFAB_ADMIN_LISTEN", &*admin)];
    let (daemon, pid) = (embedded.daemon(), embedded.daemon().running().unwrap());
    let error = refusal(&daemon.work, &same).await;
    assert!(error.starts_with(&format!("error: ./data is in use by another Confab process, pid {pid};")), "{error}");
    // With another data directory the port is the cause.
    let error = refusal(&daemon.work, &[&same[..], &[("CONFAB_DATA_DIR", "elsewhere")]].concat()).await;
    assert!(error.starts_with(&format!("error: cannot listen on {admin}")), "{error}");
}

#[tokio::test]
async fn error_names_the_variable_with_the_wrong_value() {
    let guard = Guard::new("variables").unwrap();
    let error = refusal(guard.directory(), &[("CONFAB_LISTEN", "8080")]).await;
    assert!(error.contains("127.0.0.1:8080 for this machine alone") && error.contains("CONFAB_LISTEN"), "{error}");
    let error = refusal(guard.directory(), &[("CONFAB_BUS", "redis://u:hunter2@a\nb")]).await;
    assert!(error.starts_with("error: CONFAB_BUS has a control character") && !error.contains("hunter2"), "{error}");
    Embedded::start(&[("CONFAB_BUS", " local:\n"), ("CONFAB_MAX_UPLOADS", "7\n")]).await.unwrap();
}

#[tokio::test]
async fn server_without_its_store_refuses_connections_and_reports_why() {
    let (guard, port) = (Guard::new("waiting").unwrap(), free_ports(2).unwrap());
    let directory = guard.directory();
    let nowhere = url("TEST_POSTGRES_URL", |url| format!("{}/nowhere", url.rsplit_once('/').unwrap().0));
    let settings = [
        ("CONFAB_LISTEN", format!("127.0.0.1:{port}")),
        ("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1)),
        ("CONFAB_ROOM_STORE", nowhere),
    ];
    let daemon = Daemon {
        environment: settings.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        ..Daemon::new(programs().join("confab"), directory.join("work"), directory.join("pid"), directory.join("log"))
    };
    daemon.spawn().await.unwrap();
    let readyz = async || reqwest::get(format!("http://127.0.0.1:{}/readyz", port + 1)).await.ok()?.text().await.ok();
    let waits = async || readyz().await.filter(|text| text.contains("room store"));
    let text = eventually("it waits", Duration::from_secs(30), waits).await.unwrap();
    assert_eq!(text, "not ready: waiting for Postgres; room store: database \"nowhere\" does not exist\n");
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    daemon.stop(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn commands_fail_at_once_when_postgres_rejects_them() {
    let nowhere = url("TEST_POSTGRES_URL", |url| format!("{}/nowhere", url.rsplit_once('/').unwrap().0));
    for service in ["auth", "room", "message", "file"] {
        fails(&format!("confab-{service} migrate --{service}-store={nowhere}"), "database \"nowhere\" does not exist")
            .await;
    }
    for command in ["migrate", "export backup", "renew-epoch"] {
        fails(&format!("confab {command} --auth-store={nowhere} --message-store={nowhere}"), "does not exist").await;
    }
}

#[tokio::test]
async fn log_reports_why_the_bus_is_unreachable() {
    let stranger = url("TEST_REDIS_URL", |url| url.replacen("://", "://stranger:hunter2@", 1));
    for (bus, why) in
        [(stranger.as_str(), "Password authentication failed"), ("redis://u:hunter2@127.0.0.1:1", "refused")]
    {
        let embedded = Embedded::start(&[("CONFAB_BUS", bus), ("CONFAB_INSECURE_BUS", "true")]).await.unwrap();
        let log = &embedded.daemon().log;
        let is_said =
            |log: &String| log.lines().any(|line| line.contains("the bus is unreachable") && line.contains(why));
        let said = async || std::fs::read_to_string(log).ok().filter(is_said);
        let log = eventually(why, Duration::from_secs(30), said).await.unwrap();
        assert!(!log.contains("hunter2"), "{why}: {log}");
    }
}
