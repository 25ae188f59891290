//! A Redis of the test's own, which can be killed, stopped and started again where it was.

use std::process::{Child, Command, Stdio};

use confab_common::Secret;

use super::eventually;

pub struct RedisServer {
    port: u16,
    process: Option<Child>,
}

impl RedisServer {
    pub async fn start() -> Self {
        loop {
            let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its number").port();
            let mut server = Self { port, process: None };
            if server.comes_up().await {
                return server;
            }
        }
    }

    /// Starts it, empty, and waits until it answers.
    pub async fn restart(&mut self) {
        assert!(self.comes_up().await, "redis ends at once; is its port taken?");
    }

    /// Starts it and waits until it answers, and not somebody else who has taken the port meanwhile; `false` when it ends.
    async fn comes_up(&mut self) -> bool {
        let port = self.port.to_string();
        let arguments = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let process = Command::new("redis-server").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process = process.expect("redis-server");
        let own = process.id();
        let mut ended = false;
        eventually("redis answers or ends", async || {
            ended = process.try_wait().expect("its state").is_some();
            ended || self.answers(own).await.unwrap_or(false)
        })
        .await;
        self.process = Some(process);
        !ended
    }

    async fn answers(&self, own: u32) -> redis::RedisResult<bool> {
        let mut connection = redis::Client::open(self.url().expose())?.get_multiplexed_async_connection().await?;
        let answer: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        Ok(answer.contains(&format!("process_id:{own}\r\n")))
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
