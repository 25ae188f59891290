//! A Redis of the test's own, which can be killed, stopped and started again where it was, behind a wire that can be cut.

use std::process::{Child, Command, Stdio};

use confab_common::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
        url(self.port)
    }

    /// A wire to it that carries nothing while the switch is off; connections are accepted all the same.
    pub async fn wire(&self) -> (Secret, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("its number").port();
        let (switch, carries) = watch::channel(true);
        let target = self.port;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut carries = carries.clone();
                tokio::spawn(async move {
                    let _ = carries.wait_for(|carries| *carries).await;
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                    let one = carry(from_client, to_server, carries.clone());
                    tokio::join!(one, carry(from_server, to_client, carries));
                });
            }
        });
        (url(own), switch)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut carries: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if carries.wait_for(|carries| *carries).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

fn url(port: u16) -> Secret {
    format!("redis://127.0.0.1:{port}").into()
}
