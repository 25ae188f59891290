//! The subcommand for containers: reports whether the program in the same container is ready.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use confab_tests::daemon::Daemon;
use confab_tests::embedded::Embedded;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::wait::eventually;

/// Runs it with these arguments and no other settings, in an empty directory.
async fn ask(program: &str, directory: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(programs().join(program));
    let Output { status, stdout, stderr } =
        command.args(arguments).env_clear().current_dir(directory).output().await.unwrap();
    assert!(stdout.is_empty());
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "it leaves nothing behind");
    (status.code() == Some(0), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn every_program_reports_readiness_and_the_reason() {
    let (guard, empty) = (Guard::new("healthcheck").unwrap(), Guard::new("empty").unwrap());
    // With unreachable services it never becomes ready.
    let (admin, listen) = (free_ports(2).unwrap(), "0.0.0.0:0");
    let everywhere = format!("0.0.0.0:{admin}");
    let work = guard.directory().join("work");
    let gateway = Daemon {
        arguments: vec!["--admin-listen".into(), everywhere.clone(), "--listen".into(), listen.into()],
        ..Daemon::new(
            programs().join("confab-gateway"),
            work,
            guard.directory().join("pid"),
            guard.directory().join("log"),
        )
    };
    gateway.spawn().await.unwrap();
    for program in ["confab-gateway", "confab-auth", "confab-room", "confab-message", "confab-file", "confab"] {
        // All programs of a version use the same protocol, so any of them can check any other.
        let flags = ["healthcheck", "--admin-listen", &everywhere];
        let waits = async || {
            Some(ask(program, empty.directory(), &flags).await)
                .filter(|(_, why)| why.contains("not ready: waiting for"))
        };
        let (ready, why) =
            eventually("it reports its missing condition", Duration::from_secs(30), waits).await.unwrap();
        assert!(!ready && why.starts_with("error: not ready: waiting for "), "{program}: {why}");
        let unused = ["--admin-listen", &format!("127.0.0.1:{}", admin + 1), "healthcheck"];
        let (ready, why) = ask(program, empty.directory(), &unused).await;
        assert!(!ready && why.contains("cannot connect to"), "{program}: {why}");
    }
    let embedded = Embedded::start(&[]).await.unwrap();
    let port = embedded.url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap() + 1;
    let flags = ["healthcheck", "--admin-listen", &format!("127.0.0.1:{port}")];
    let healthy = async || (ask("confab", empty.directory(), &flags).await == (true, String::new())).then_some(());
    eventually("the program is ready", Duration::from_secs(30), healthy).await.unwrap();
}
