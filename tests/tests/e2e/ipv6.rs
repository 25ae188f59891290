//! A cluster that uses only IPv6 addresses.

use std::time::Duration;

use confab_tests::certificates;
use confab_tests::daemon::Daemon;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::wait::eventually;

const STEP_LIMIT: Duration = Duration::from_secs(60);

const PROGRAMS: [&str; 6] = ["auth", "room", "message", "file", "gateway", "gateway"];
/// Ports of a program: for its callers, for administrators, for other gateways.
const PORTS: u16 = 3;

#[tokio::test]
async fn gateways_forward_sessions_over_ipv6() {
    let (guard, first) = (Guard::new("ipv6").unwrap(), free_ports(PROGRAMS.len() as u16 * PORTS).unwrap());
    let port = |program: usize, of: u16| first + program as u16 * PORTS + of;
    let at = |program: usize, of: u16| format!("http://[::1]:{}", port(program, of));
    let service = |program: usize| at(program, 0).replace("http://", "https://");
    let common = [
        ("CONFAB_CLUSTER_KEY", "3q2+7wECAwT1bRz9q/0tYp8KXw5cHk2mVnL0aGZkQjE=".to_owned()),
        ("CONFAB_AUTH_URL", service(0)),
        ("CONFAB_ROOM_URL", service(1)),
        ("CONFAB_MESSAGE_URL", service(2)),
        ("CONFAB_FILE_URL", service(3)),
    ];
    let tls = guard.directory().join("tls");
    certificates::make(&tls).unwrap();
    let mut daemons = Vec::new();
    for (number, program) in PROGRAMS.iter().enumerate() {
        let mut environment = common.to_vec();
        environment.push(("CONFAB_LISTEN", format!("[::]:{}", port(number, 0))));
        environment.push(("CONFAB_ADMIN_LISTEN", format!("[::]:{}", port(number, 1))));
        if *program == "gateway" {
            environment.push(("CONFAB_GATEWAY_URL", format!("{},{}", at(4, 2), at(5, 2))));
            environment.push(("CONFAB_FORWARD_LISTEN", format!("[::]:{}", port(number, 2))));
            environment.push(("CONFAB_FORWARD_ADDRESS", "::1".into()));
        }
        let file = |end: &str| guard.directory().join(format!("{number}.{end}"));
        let daemon = Daemon {
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .chain(certificates::settings(&tls, program))
                .collect(),
            ..Daemon::new(programs().join(format!("confab-{program}")), file("work"), file("pid"), file("log"))
        };
        daemon.spawn().await.unwrap();
        daemons.push(daemon);
    }
    for number in [4, 5] {
        let readyz = format!("{}/readyz", at(number, 1));
        let ready = async || reqwest::get(&readyz).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
        eventually("a gateway is ready", STEP_LIMIT, ready)
            .await
            .unwrap_or_else(|error| panic!("{error:#}: {}", daemons[number].last_words()));
    }
    let polling = "/socket.io/?EIO=4&transport=polling";
    let opened = reqwest::get(at(4, 0) + polling).await.unwrap().text().await.unwrap();
    let session = opened.split('"').nth(3).unwrap();
    let client = reqwest::Client::new();
    let elsewhere = format!("{}{polling}&sid={session}", at(5, 0));
    let sent = client.post(&elsewhere).body(r#"40{"token":"x"}"#).send().await.unwrap();
    assert_eq!(sent.text().await.unwrap(), "ok", "{}", daemons[5].last_words());
    let answer = client.get(&elsewhere).send().await.unwrap().text().await.unwrap();
    assert!(answer.starts_with("44") && answer.contains("the token is not valid"), "{answer}");
    for daemon in &daemons {
        daemon.stop(STEP_LIMIT).await.unwrap();
    }
}
