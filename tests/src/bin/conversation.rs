//! `conversation [URL]`: runs the conversation of the end-to-end tests against a running server.

use std::time::Instant;

use clap::Parser;
use confab_tests::conversation::{CLIENTS, LINES, ROOMS, converse};

/// Twenty stock clients talk in new rooms; each must receive exactly the history of its rooms
#[derive(Parser)]
struct Arguments {
    /// URL of the load balancer, or of any gateway
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { url } = Arguments::parse();
    let begin = Instant::now();
    converse(&url).await?;
    let seconds = begin.elapsed().as_secs_f32();
    println!(
        "{CLIENTS} stock clients sent {LINES} lines in {ROOMS} rooms in {seconds:.1} s; each received exactly the history of its rooms."
    );
    Ok(())
}
