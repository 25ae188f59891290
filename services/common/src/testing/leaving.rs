//! A program that shuts down while the bus accepts no bytes.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::SilentProxy;
use crate::process::Process;

/// Starts a program on a silent bus, calls `act` until it succeeds, shuts the program down, and only then lets the bus
/// answer. Returns when the program has ended without an error and its publication has arrived. One attempt may fail if
/// the machine stands still for longer than a publisher waits, but not every attempt.
///
/// # Panics
/// When the program did not start, did not end without an error, or its publication never arrives.
pub async fn leave_in_silence<P, F, R>(run: R, act: impl AsyncFn(&str) -> bool, mut received: impl AsyncFnMut())
where
    P: clap::Parser + Send + 'static,
    F: Future<Output = anyhow::Result<()>>,
    R: Fn(P, Process) -> F + Copy + Send + 'static,
{
    for _ in 0..3 {
        leave(run, &act).await;
        if timeout(Duration::from_secs(5), received()).await.is_ok() {
            return;
        }
    }
    panic!("the program's last publication is lost in every attempt");
}

async fn leave<P, F>(run: impl FnOnce(P, Process) -> F + Send + 'static, act: impl AsyncFn(&str) -> bool)
where
    P: clap::Parser + Send + 'static,
    F: Future<Output = anyhow::Result<()>>,
{
    let proxy = SilentProxy::to(&super::redis()).await;
    proxy.silence();
    let listen =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (data, bus) = (super::directory(), proxy.url());
    let settings = [
        format!("--listen={listen}"),
        format!("--data-dir={}", data.display()),
        format!("--bus={}", bus.expose()),
        // The test's own listener has no key either.
        "--insecure-bus=true".to_owned(),
    ];
    let program = P::parse_from(std::iter::once("program".to_owned()).chain(settings));
    let process = Process::new();
    let running = std::thread::spawn({
        let process = process.clone();
        move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let ended = runtime.block_on(run(program, process));
            runtime.shutdown_background();
            ended
        }
    });
    let url = format!("http://{listen}");
    while !act(&url).await {
        if running.is_finished() {
            panic!("the program has not started: {:?}", running.join());
        }
        sleep(Duration::from_millis(20)).await;
    }
    process.shutdown.cancel();
    // The program must wait at least this long for the bus.
    sleep(Duration::from_millis(300)).await;
    proxy.resume();
    let ended = tokio::task::spawn_blocking(|| running.join().expect("the program must not panic"))
        .await
        .expect("the program must not panic");
    ended.expect("the program must end without an error");
}
