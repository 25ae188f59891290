//! nginx as the load balancer: round robin over the gateways, no stickiness.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, Signal, getrlimit};

use crate::daemon::Daemon;

/// How it is run; the process is the master itself.
///
/// # Errors
/// When it is not installed.
pub fn daemon(work: PathBuf, pid_file: PathBuf, log: PathBuf) -> anyhow::Result<Daemon> {
    // Debian's build would log to /var/log before it has read its settings.
    let arguments = ["-e", "stderr", "-p", ".", "-c", "nginx.conf"].map(String::from).to_vec();
    Ok(Daemon {
        program: super::program("nginx")?,
        arguments,
        environment: vec![],
        inherits_settings: false,
        user: None,
        work,
        pid_file,
        log,
        lock_file: None,
        stop: Signal::TERM,
    })
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

    upstream gateways {{ {servers}keepalive 64; }}
    map $http_upgrade $connection_header {{ default upgrade; '' ''; }}

    server {{
        listen 127.0.0.1:{port} backlog=4096;
        client_max_body_size 0;
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            # Bodies pass through: no temporary files, and the gateway's limits are answered early.
            proxy_request_buffering off;
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
