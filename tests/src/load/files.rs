//! `load files`: transfers one large file through a gateway and a file service, and with a bare S3 client on the same
//! object store; then many small files while clients chat. It uses a scratch cluster, because the file service's size
//! limit is raised.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::figures::Figures;
use super::options::{Options, Window, say, show};
use super::process::{Cpu, Memory, Watched};
use crate::api::{Account, Api};
use crate::cluster::Cluster;
use crate::form::{BOUNDARY, Form, content_type, file_headers};
use crate::plan::Role;
use crate::programs;

const MIB: u64 = 1024 * 1024;
/// Uploads of 1 MiB that start at once while clients chat.
const BURST: usize = 50;
/// Minimum time from one burst to the next.
const BURST_INTERVAL: Duration = Duration::from_secs(2);
/// How often memory is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Sizes and durations
#[derive(Debug, clap::Args)]
pub struct Files {
    /// Size of the large file
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Number of runs; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long clients chat, without and with uploads, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario.
///
/// # Errors
/// When a transfer is rejected or returns different bytes.
pub async fn run(files: Files) -> anyhow::Result<()> {
    let bytes = files.mib * MIB;
    let limit = bytes.to_string();
    let settings = [("CONFAB_MAX_FILE_SIZE", &*limit), ("CONFAB_MAX_BYTES_PER_USER", "0")];
    let cluster = Cluster::scratch(1, 1, &settings).await?;
    let url = cluster.plan.url((Role::Gateway, 1));
    let api = Api::new(&url);
    let account = api.signup().await?;
    let watched = Watched::directory(&cluster.plan.directory.join("pids"))?;
    let mut figures = Figures::default();
    for run in 1..=files.runs {
        say(&format!("Run {run} of {}: {} MiB up and down, twice…", files.runs, files.mib));
        let bare = bare(&cluster, bytes)?;
        let mut id = String::new();
        let up = watch(&watched, &mut figures, "up", bytes, || {
            id = upload(&url, &account, bytes)?;
            Ok(())
        })?;
        let down = watch(&watched, &mut figures, "down", bytes, || download(&url, &account, &id, bytes))?;
        for (way, ours, bare) in [("up", up, bare.0), ("down", down, bare.1)] {
            figures.add(format!("{way}, through gateway and file service"), "MiB/s", files.mib as f64 / ours);
            figures.add(format!("{way}, the bare program"), "MiB/s", files.mib as f64 / bare);
            figures.add(format!("{way}, of the bare program's speed"), "%", bare / ours * 100.0);
        }
        // On a new connection: the last one has been idle for too long.
        Api::new(&url).call(reqwest::Method::DELETE, &format!("/api/files/{id}"), Some(&account), None).await?;
    }
    let options = Options {
        url: vec![url.clone()],
        pid: watched,
        pids_dir: None,
        seconds: files.seconds,
        runs: 1,
        warm_up: 2,
        threads: 1,
        users: 8,
        connecting: 64,
        json: files.json,
    };
    let faults = chat(&options, &url, &account, &mut figures).await?;
    show(files.json, &format!("files: {} MiB, then {BURST} of 1 MiB at once while people chat", files.mib), &figures);
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Returns how long the bare client takes to upload and to download, in seconds.
fn bare(cluster: &Cluster, bytes: u64) -> anyhow::Result<(f64, f64)> {
    let program = programs().join("examples/s3_copy");
    let mut command = Command::new(&program);
    command.args(["bare", &bytes.to_string()]).envs(cluster.daemon((Role::File, 1))?.environment);
    let output = command
        .output()
        .with_context(|| format!("{}: `cargo build --release --examples` builds it", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (up, down) =
        text.trim().split_once(' ').with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((up.parse()?, down.parse()?))
}

/// Runs a task, and records the resource use of gateways and file services meanwhile. Returns the duration in seconds.
fn watch(
    watched: &[Watched],
    figures: &mut Figures,
    way: &str,
    bytes: u64,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let ours = |process: &&Watched| process.name.starts_with("gateway") || process.name.starts_with("file");
    let ours = watched.iter().filter(ours).cloned().collect::<Vec<_>>();
    let before = ours.iter().map(Memory::of).collect::<anyhow::Result<Vec<_>>>()?;
    let cpu = Cpu::now(watched)?;
    let done = Arc::new(AtomicBool::new(false));
    let peaks = ours.iter().map(|_| Arc::new(AtomicU64::new(0))).collect::<Vec<_>>();
    let looking = {
        let (done, ours, peaks) = (done.clone(), ours.clone(), peaks.clone());
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for (process, peak) in ours.iter().zip(&peaks) {
                    peak.fetch_max(Memory::of(process).map_or(0, |memory| memory.rss), Ordering::Relaxed);
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
        })
    };
    let begun = Instant::now();
    let worked = work();
    let took = begun.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let _ = looking.join();
    worked?;
    let used = Cpu::now(watched)?.since(&cpu);
    for (process, used) in watched.iter().zip(&used.watched) {
        let per_gib = used.as_secs_f64() / (bytes as f64 / (1024 * MIB) as f64);
        figures.add(format!("{way}, {} cpu", process.name), "s/GiB", per_gib);
    }
    for ((process, before), peak) in ours.iter().zip(&before).zip(&peaks) {
        let growth = peak.load(Ordering::Relaxed).saturating_sub(before.rss) / MIB;
        figures.add(format!("{way}, {} grew by", process.name), "MiB", growth as f64);
    }
    Ok(took)
}

/// Returns incompressible bytes.
fn block() -> Vec<u8> {
    (0..MIB).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Uploads `bytes` bytes. Returns the file's id.
fn upload(url: &str, account: &Account, bytes: u64) -> anyhow::Result<String> {
    let head = format!("--{BOUNDARY}\r\n{}\r\n", file_headers("large.bin", "application/octet-stream"));
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let length = bytes + (head.len() + tail.len()) as u64;
    let extra = format!("Content-Type: {}\r\nContent-Length: {length}\r\n", content_type());
    let mut stream = request(url, account, "POST /api/files/upload", &extra)?;
    stream.write_all(head.as_bytes())?;
    let block = block();
    for at in (0..bytes).step_by(block.len()) {
        stream.write_all(&block[..MIB.min(bytes - at) as usize])?;
    }
    stream.write_all(tail.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 201"), "refused: {answer}");
    let file: serde_json::Value = serde_json::from_str(body)?;
    file["id"].as_str().map(str::to_owned).context("a File has an id")
}

/// Downloads and discards a file.
fn download(url: &str, account: &Account, id: &str, bytes: u64) -> anyhow::Result<()> {
    let mut stream = request(url, account, &format!("GET /api/files/{id}"), "")?;
    let mut buffer = block();
    let mut read = 0;
    let mut head = None;
    loop {
        let length = stream.read(&mut buffer)? as u64;
        if length == 0 {
            break;
        }
        read += length;
        head = head.or_else(|| buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at as u64 + 4));
    }
    ensure!(head.is_some_and(|head| read == head + bytes), "received {read} bytes including the head");
    Ok(())
}

fn request(url: &str, account: &Account, line: &str, headers: &str) -> anyhow::Result<TcpStream> {
    let host = url.strip_prefix("http://").context("an http URL")?;
    let mut stream = TcpStream::connect(host)?;
    let token = &account.token;
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    Ok(stream)
}

/// Ten rooms of ten clients, each with one message in flight: without uploads, then with uploads.
async fn chat(options: &Options, url: &str, account: &Account, figures: &mut Figures) -> anyhow::Result<Vec<String>> {
    let bench = options.begin().await?;
    let mut members = Vec::new();
    for room in bench.rooms(10).await? {
        for number in 0..10 {
            let mut member = bench.member(members.len());
            (member.room, member.joins, member.in_flight) = (Some(room.clone()), true, usize::from(number == 0));
            members.push(member);
        }
    }
    let (crew, _) = bench.open(members)?;
    crew.speak();
    bench.warm_up();
    let alone = bench.measure(&crew, 1)?;
    let done = Arc::new(AtomicBool::new(false));
    let uploads = {
        let (done, api, account) = (done.clone(), Api::new(url), account.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(bursts(&api, &account, &done))
        })
    };
    let beside = bench.measure(&crew, 1);
    done.store(true, Ordering::Relaxed);
    let uploaded = uploads.join().map_err(|_| anyhow::anyhow!("the uploads panicked"))?;
    let (beside, uploaded) = (beside?, uploaded?);
    let mut faults = crew.finish()?.faults();
    for (when, window) in [("chat alone", &alone), ("chat beside uploads", &beside)] {
        add(figures, when, window);
        faults.extend(window.counts.faults());
    }
    figures.add("uploads of 1 MiB beside chat", "/s", uploaded as f64 / beside.seconds);
    Ok(faults)
}

fn add(figures: &mut Figures, when: &str, window: &Window) {
    figures.add(format!("{when}: acknowledged"), "/s", window.counts.acks as f64 / window.seconds);
    figures.add(format!("{when}: ack p50"), "ms", window.counts.ack_time.percentile(50.0));
    figures.add(format!("{when}: ack p99"), "ms", window.counts.ack_time.percentile(99.0));
}

/// Uploads in bursts until `done`. Returns the number of uploaded files.
async fn bursts(api: &Api, account: &Account, done: &AtomicBool) -> anyhow::Result<usize> {
    let block = block();
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut uploads = JoinSet::new();
        for _ in 0..BURST {
            let (api, account) = (api.clone(), account.clone());
            let form = Form::new().file("small.bin", "application/octet-stream", &block);
            uploads.spawn(async move { api.upload(&account, form).await?.expect(201) });
        }
        while let Some(uploaded) = uploads.join_next().await {
            uploaded??;
            count += 1;
        }
        tokio::time::sleep(BURST_INTERVAL.saturating_sub(begun.elapsed())).await;
    }
    Ok(count)
}
