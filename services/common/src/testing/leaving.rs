//! A program that leaves while the bus takes nothing.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use super::Wire;
use crate::process::Process;

/// Starts a program on a bus that is silent, does something by it at its URL until that succeeds, has it leave, and only then lets
/// the bus speak. Returns when the program has ended well.
///
/// # Panics
/// When it has not.
pub async fn leave_in_silence<P, F>(run: impl FnOnce(P, Process) -> F + Send + 'static, act: impl AsyncFn(&str) -> bool)
where
    P: clap::Parser + Send + 'static,
    F: Future<Output = anyhow::Result<()>>,
{
    let wire = Wire::to(&super::redis()).await;
    wire.silence();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (data, bus) = (super::directory(), wire.url());
    let settings = [format!("--listen={listen}"), format!("--data-dir={}", data.display()), format!("--bus={}", bus.expose())];
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
        sleep(Duration::from_millis(20)).await;
    }
    process.shutdown.cancel();
    // So long it must hold what the bus does not take.
    sleep(Duration::from_millis(300)).await;
    wire.carry();
    let ended = tokio::task::spawn_blocking(|| running.join().expect("it ends")).await.expect("it ends");
    ended.expect("it ends well");
}
