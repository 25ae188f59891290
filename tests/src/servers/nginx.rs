//! nginx as the load balancer: round robin over the gateways, no stickiness.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};

use crate::daemon::Daemon;

/// How it is run; the process is the master itself.
///
/// # Errors
/// When it is not installed.
pub fn daemon(work: PathBuf, pid_file: PathBuf, log: PathBuf) -> anyhow::Result<Daemon> {
    // Debian's build would log to /var/log before it has read its settings.
    let arguments = ["-e", "stderr", "-p", ".", "-c", "nginx.conf"].map(String::from).to_vec();
    Ok(Daemon { arguments, ..Daemon::new(super::program("nginx")?, work, pid_file, log) })
}

/// Writes its settings; true when they are other than before.
///
/// # Errors
/// When they cannot be written.
pub fn configure(daemon: &Daemon, port: u16, gateways: &[u16]) -> anyhow::Result<bool> {
    fs::create_dir_all(&daemon.work)?;
    let file = daemon.work.join("nginx.conf");
    let text = settings(port, gateways, rustix::process::geteuid().is_root());
    if fs::read_to_string(&file).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    fs::write(file, text)?;
    Ok(true)
}

fn settings(port: u16, gateways: &[u16], root: bool) -> String {
    let servers: String = gateways.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=1 fail_timeout=1s; ")).collect();
    // nginx complains of limits that it cannot have.
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(65_536);
    let connections = descriptors.min(16_384);
    let user = if root { "user www-data;" } else { "" };
    let malformed = problem(400, "Bad Request", "invalid_request", "the request is malformed or its head too large");
    let unavailable = problem(503, "Service Unavailable", "unavailable", "no gateway can be reached now, try again");
    let timeout = problem(504, "Gateway Timeout", "timeout", "no answer in time; it may have been done, so retry with the same id");
    format!(
        r#"daemon off;
{user}
worker_processes auto;
worker_rlimit_nofile {descriptors};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;

    # A gateway that leaves takes requests for two more seconds: until then every idle connection to it is ended or used.
    upstream gateways {{ {servers}keepalive 64; keepalive_timeout 1s; }}
    map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
    # When the last gateway that was tried had been reached, it may have done what was asked; else one may come back at once.
    map $upstream_connect_time $retry_after {{ default 1; '~[0-9]$' ''; }}

    server {{
        listen 127.0.0.1:{port} backlog=4096;
        client_max_body_size 0;
        default_type application/problem+json;
        # What nginx itself refuses is told like what a gateway refuses.
        error_page 400 414 494 = /.malformed;
        error_page 502 503 504 = @failed;
        # By a path: a request that could not be read has none, and no named location then.
        location = /.malformed {{ return 400 '{malformed}'; }}
        location @failed {{
            add_header Retry-After $retry_after always;
            if ($retry_after) {{ return 503 '{unavailable}'; }}
            return 504 '{timeout}';
        }}
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            # Bodies pass through: no temporary files, the gateway's limits are answered early, and who downloads slowly
            # is waited for with 64 KiB in hand.
            proxy_request_buffering off;
            proxy_buffers 8 8k;
            proxy_max_temp_file_size 0;
            # A request that may have done something is never sent twice: only GET and its like go on to the next gateway.
            proxy_next_upstream error timeout;
            proxy_connect_timeout 1s;
            # A socket may be silent for a ping interval and its timeout.
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"#
    )
}

/// What the gateways answer, too (`gateway/src/problem.rs`).
fn problem(status: u16, title: &str, code: &str, detail: &str) -> String {
    format!(r#"{{"type":"about:blank","title":"{title}","status":{status},"code":"{code}","detail":"{detail}","requestId":"$request_id"}}"#)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::guard::Guard;
    use crate::plan::free_ports;
    use crate::wait::eventually;

    /// The status, the code and `Retry-After` of a problem.
    async fn problem(url: &str) -> Option<(u16, String, bool)> {
        let answer = reqwest::Client::new().post(url).body("x").send().await.ok()?;
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["status"], status);
        Some((status, document["code"].as_str().unwrap().to_owned(), retry))
    }

    #[tokio::test]
    async fn what_the_balancer_refuses_is_a_problem_like_any_other() {
        let guard = Guard::new("nginx").unwrap();
        let (port, gateway) = (free_ports(1).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let directory = guard.directory();
        let nginx = daemon(directory.join("work"), directory.join("pid"), directory.join("log")).unwrap();
        configure(&nginx, port, &[gateway.local_addr().unwrap().port()]).unwrap();
        nginx.spawn().await.unwrap();
        let url = format!("http://127.0.0.1:{port}/");

        // A gateway that takes the request and dies: it may have been done.
        let dying = std::thread::spawn(move || {
            let (mut gateway, _) = gateway.accept().unwrap();
            gateway.read_exact(&mut [0; 4]).unwrap();
        });
        let broken = eventually("nginx answers", Duration::from_secs(10), async || problem(&url).await).await.unwrap();
        assert_eq!(broken, (504, "timeout".into(), false));
        dying.join().unwrap();
        // None at all: it has not.
        assert_eq!(problem(&url).await.unwrap(), (503, "unavailable".into(), true));
        let long = format!("{url}{}", "x".repeat(40_000));
        assert_eq!(problem(&long).await.unwrap(), (400, "invalid_request".into(), false));
    }
}
