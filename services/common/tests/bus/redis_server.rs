//! A Redis of the test's own, which can be killed, stopped and started again where it was.

use std::process::{Child, Command, Stdio};

use confab_common::Secret;
use tokio::net::TcpStream;

use super::eventually;

pub struct RedisServer {
    port: u16,
    process: Option<Child>,
}

impl RedisServer {
    pub async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its number").port();
        let mut server = Self { port, process: None };
        server.restart().await;
        server
    }

    /// Starts it, empty, and waits until it answers.
    pub async fn restart(&mut self) {
        let port = self.port.to_string();
        let arguments = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let process = Command::new("redis-server").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("redis-server"));
        eventually("redis answers", async || TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()).await;
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("its end");
        }
    }

    /// Sends it STOP or CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    pub fn url(&self) -> Secret {
        format!("redis://127.0.0.1:{}", self.port).into()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
