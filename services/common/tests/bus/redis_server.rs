//! A Redis for one test, which can be killed, stopped and restarted at the same address.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use confab_common::{Secret, testing};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue};
use tokio::net::TcpSocket;

use super::eventually;

pub struct RedisServer {
    address: SocketAddr,
    /// Never listens: it reserves the port while Redis is down.
    _reserved: TcpSocket,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server with additional arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let reserved = TcpSocket::new_v4().expect("a socket");
        reserved.set_reuseaddr(true).expect("an option");
        reserved.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let mut server = Self {
            address: reserved.local_addr().expect("its address"),
            _reserved: reserved,
            process: None,
            arguments: vec![],
        };
        server.arguments = arguments.iter().map(ToString::to_string).collect();
        server.restart().await;
        server
    }

    /// Starts the server, empty, and waits until it answers.
    pub async fn restart(&mut self) {
        let port = self.address.port().to_string();
        // A master saves its data there for a replica.
        let work = testing::directory().display().to_string();
        let usual = ["--bind", "127.0.0.1", "--port", &port, "--dir", &work];
        // A configuration file, also of a Sentinel, must be the first argument.
        let process = Command::new("redis-server")
            .args(&self.arguments)
            .args(usual)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("redis-server"));
        eventually("redis answers", async || self.info("server").await.is_ok()).await;
    }

    /// Returns the answer to a command.
    pub async fn ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        words.for_each(|word| _ = command.arg(word));
        command.query_async(&mut connection(&self.url()).await?).await
    }

    /// Returns a section of INFO.
    pub async fn info(&self, section: &str) -> redis::RedisResult<String> {
        self.ask(&format!("INFO {section}")).await
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("its end");
        }
    }

    /// Sends SIGSTOP or SIGCONT.
    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> Secret {
        format!("redis://{}", self.address).into()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a plain connection without a time limit.
pub async fn connection(url: &Secret) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    redis::Client::open(url.expose())?.get_multiplexed_async_connection_with_config(&config).await
}
