//! nginx as the load balancer: round robin over the gateways, no stickiness.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};

use crate::daemon::Daemon;

/// Describes how to run it; the process is the master itself.
///
/// # Errors
/// When it is not installed.
pub fn daemon(work: PathBuf, pid_file: PathBuf, log: PathBuf) -> anyhow::Result<Daemon> {
    // Debian's build would log to /var/log before it reads its settings.
    let arguments = ["-e", "stderr", "-p", ".", "-c", "nginx.conf"].map(String::from).to_vec();
    Ok(Daemon { arguments, ..Daemon::new(super::program("nginx")?, work, pid_file, log) })
}

/// Writes its settings; returns whether they have changed.
///
/// # Errors
/// When they cannot be written.
pub fn configure(daemon: &Daemon, listen: SocketAddr, gateways: &[SocketAddr]) -> anyhow::Result<bool> {
    fs::create_dir_all(&daemon.work)?;
    let file = daemon.work.join("nginx.conf");
    let text = settings(listen, gateways, rustix::process::geteuid().is_root())?;
    if fs::read_to_string(&file).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    fs::write(file, text)?;
    Ok(true)
}

/// Returns the settings in deploy/nginx, with the addresses, limits and paths of the test run.
fn settings(listen: SocketAddr, gateways: &[SocketAddr], root: bool) -> anyhow::Result<String> {
    let servers =
        |options: &str| gateways.iter().map(|gateway| format!("server {gateway} {options}; ")).collect::<String>();
    // nginx complains about limits that it cannot raise.
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(65_536);
    let user = if root { "user www-data;\n" } else { "" };
    let ours = [
        ("daemon off;\n", format!("daemon off;\n{user}")),
        ("worker_rlimit_nofile 65536;", format!("worker_rlimit_nofile {descriptors};")),
        ("worker_connections 16384;", format!("worker_connections {};", descriptors.min(16_384))),
        ("server gateway:8080 resolve max_fails=1 fail_timeout=1s;", servers("max_fails=1 fail_timeout=1s")),
        ("server gateway:8080 resolve max_fails=0 backup;", servers("max_fails=0 backup")),
        ("listen 8080 ", format!("listen {listen} ")),
        ("/tmp/", String::new()),
    ];
    ours.iter().try_fold(include_str!("../../../deploy/nginx/nginx.conf").to_owned(), |text, (theirs, ours)| {
        anyhow::ensure!(text.contains(theirs), "deploy/nginx/nginx.conf has no `{theirs}`");
        Ok(text.replace(theirs, ours))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::guard::Guard;
    use crate::plan::free_ports;
    use crate::wait::eventually;

    /// Returns the status, the code and whether `Retry-After` is set, of a problem document.
    async fn problem(url: &str) -> Option<(u16, String, bool)> {
        let answer = reqwest::Client::new().post(url).body("x").send().await.ok()?;
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["status"], status);
        Some((status, document["code"].as_str().unwrap().to_owned(), retry))
    }

    #[tokio::test]
    async fn load_balancer_errors_are_problem_documents() {
        let guard = Guard::new("nginx").unwrap();
        let (port, gateway) = (free_ports(1).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let directory = guard.directory();
        let nginx = daemon(directory.join("work"), directory.join("pid"), directory.join("log")).unwrap();
        configure(&nginx, ([127, 0, 0, 1], port).into(), &[gateway.local_addr().unwrap()]).unwrap();
        nginx.spawn().await.unwrap();
        let url = format!("http://127.0.0.1:{port}/");

        // The gateway accepts the request and dies: it may have executed the request.
        let dying = std::thread::spawn(move || {
            let (mut gateway, _) = gateway.accept().unwrap();
            gateway.read_exact(&mut [0; 4]).unwrap();
        });
        let broken = eventually("nginx answers", Duration::from_secs(10), async || problem(&url).await).await.unwrap();
        assert_eq!(broken, (504, "timeout".into(), false));
        dying.join().unwrap();
        // No gateway is reachable: the request was not executed.
        assert_eq!(problem(&url).await.unwrap(), (503, "unavailable".into(), true));
        let long = format!("{url}{}", "x".repeat(40_000));
        assert_eq!(problem(&long).await.unwrap(), (400, "invalid_request".into(), false));
    }
    #[tokio::test]
    async fn failed_gateway_is_retried_before_rejecting_a_client() {
        let guard = Guard::new("nginx").unwrap();
        let (port, back, gone) = (free_ports(1).unwrap(), free_ports(1).unwrap(), free_ports(1).unwrap());
        let directory = guard.directory();
        let nginx = daemon(directory.join("work"), directory.join("pid"), directory.join("log")).unwrap();
        configure(&nginx, ([127, 0, 0, 1], port).into(), &[back, gone].map(|port| ([127, 0, 0, 1], port).into()))
            .unwrap();
        nginx.spawn().await.unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        let refused = eventually("nginx answers", Duration::from_secs(10), async || problem(&url).await).await.unwrap();
        assert_eq!(refused.0, 503);

        let gateway = tokio::net::TcpListener::bind(("127.0.0.1", back)).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = gateway.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
                // Until the other side has read the request and closed the connection.
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        for _ in 0..50 {
            assert_eq!(reqwest::Client::new().post(&url).body("x").send().await.unwrap().status(), 204);
        }
    }
}
