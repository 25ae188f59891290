//! The errors of programs that cannot start or reach their dependencies.

use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::guard::Guard;
use confab_tests::programs;
use confab_tests::wait::eventually;
use tokio::time::timeout;

/// The URL in a variable of the test run, with another server or database.
fn url(variable: &str, change: impl FnOnce(&str) -> String) -> String {
    change(&std::env::var(variable).unwrap_or_else(|_| panic!("{variable}; `make test` sets it")))
}

/// Checks that the program fails with this error and leaves nothing behind.
async fn fails(line: &str, why: &str) {
    let guard = Guard::new("starting").unwrap();
    let mut words = line.split(' ');
    let mut command = tokio::process::Command::new(programs().join(words.next().unwrap()));
    command.args(words).env_clear().current_dir(guard.directory()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output()).await.unwrap_or_else(|_| panic!("{line} does not end")).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(why) && !error.contains("hunter2"), "{line}: {error}");
    assert_eq!(std::fs::read_dir(guard.directory()).unwrap().count(), 0, "{line} leaves something behind");
}

#[tokio::test]
async fn wrong_settings_are_named_before_anything_is_done() {
    for (line, why) in [
        ("confab-gateway --message-url=nowhere", "--message-url"),
        ("confab-gateway --bus=amqp://u:hunter2@h", "CONFAB_BUS"),
        ("confab-file --objects=s3://key:hunter2@b", "CONFAB_OBJECTS must be s3://bucket"),
        ("confab-file --max-file-size=100MiB", "must be a number of bytes"),
        ("confab --cluster-key=hunter2", "CONFAB_CLUSTER_KEY must be at least 32 random bytes"),
        ("confab --bus=redis://u:hunter2@h", "CONFAB_CLUSTER_KEY is not set"),
        ("confab-message --bus=redis://u:hunter2@h", "CONFAB_CLUSTER_KEY is not set"),
        ("confab-gateway --max-connections=0", "from 1 on"),
        ("confab-gateway --ping-interval=0s", "must not be zero"),
        ("confab-room --postgres-connections=0", "from 1 on"),
        ("confab-auth --auth-store=postgres://u:hunter2@h:none/d", "CONFAB_AUTH_STORE is not a valid postgres:// URL"),
        ("confab-message renew-epoch", "there is no log in ./data/message.db"),
        ("confab renew-epoch --data-dir=elsewhere", "there is no log in elsewhere/message.db"),
    ] {
        fails(line, why).await;
    }
}

#[tokio::test]
async fn commands_that_run_once_end_when_postgres_refuses() {
    let nowhere = url("TEST_POSTGRES_URL", |url| format!("{}/nowhere", url.rsplit_once('/').unwrap().0));
    for service in ["auth", "room", "message", "file"] {
        fails(&format!("confab-{service} migrate --{service}-store={nowhere}"), "database \"nowhere\" does not exist").await;
    }
    for command in ["migrate", "export backup", "renew-epoch"] {
        fails(&format!("confab {command} --auth-store={nowhere} --message-store={nowhere}"), "does not exist").await;
    }
}

#[tokio::test]
async fn the_log_says_why_the_bus_cannot_be_received() {
    let stranger = url("TEST_REDIS_URL", |url| url.replacen("://", "://stranger:hunter2@", 1));
    for (bus, why) in [(stranger.as_str(), "Password authentication failed"), ("redis://u:hunter2@127.0.0.1:1", "refused")] {
        let embedded = Embedded::start(&[("CONFAB_BUS", bus), ("CONFAB_INSECURE_BUS", "true")]).await.unwrap();
        let log = &embedded.daemon().log;
        let is_said = |log: &String| log.lines().any(|line| line.contains("the bus cannot be heard") && line.contains(why));
        let said = async || std::fs::read_to_string(log).ok().filter(is_said);
        let log = eventually(why, Duration::from_secs(30), said).await.unwrap();
        assert!(!log.contains("hunter2"), "{why}: {log}");
    }
}
