//! Redis, without persistence: messages on the bus may be lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::Daemon;

/// Describes how to run Redis.
///
/// # Errors
/// When it is not installed.
pub fn daemon(work: PathBuf, port: u16, pid_file: PathBuf, log: PathBuf) -> anyhow::Result<Daemon> {
    Ok(of(super::program("redis-server")?, work, port, pid_file, log))
}

/// Describes how to run this Redis program.
pub fn of(program: PathBuf, work: PathBuf, port: u16, pid_file: PathBuf, log: PathBuf) -> Daemon {
    let port = port.to_string();
    let arguments = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--daemonize", "no"];
    Daemon { arguments: arguments.map(String::from).to_vec(), ..Daemon::new(program, work, pid_file, log) }
}

/// Returns the arguments with which it also listens on a port for TLS, only for clients with a certificate of this
/// authority.
pub fn accept_tls(port: u16, (certificate, key): &(PathBuf, PathBuf), authority: &Path) -> Vec<String> {
    let file = |path: &Path| path.display().to_string();
    let arguments = [
        ["--tls-port".into(), port.to_string()],
        ["--tls-cert-file".into(), file(certificate)],
        ["--tls-key-file".into(), file(key)],
        ["--tls-ca-cert-file".into(), file(authority)],
        ["--tls-auth-clients".into(), "yes".into()],
    ];
    arguments.into_iter().flatten().collect()
}

/// Returns whether it answers.
pub fn is_ready(address: SocketAddr) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    asked().unwrap_or(false)
}
