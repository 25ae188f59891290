//! `load start`: how long the program takes until it is ready, and its memory and size.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::figures::Figures;
use super::options::{say, show};
use super::process::{Memory, Watched};
use crate::guard::Guard;
use crate::plan::free_ports;

const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a program takes to become idle after its start.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// The program to measure
#[derive(Debug, clap::Args)]
pub struct Start {
    /// Path of the program [default: the confab beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Its data directory [default: a scratch directory that a first start prepares]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Number of starts; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario.
///
/// # Errors
/// When the program does not become ready.
pub fn run(start: Start) -> anyhow::Result<()> {
    let program = start.program.unwrap_or_else(|| crate::programs().join("confab"));
    let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
    let guard = Guard::new("start")?;
    let data = start.data_dir.map_or_else(|| Ok(guard.directory().join("data")), std::path::absolute)?;
    let mut figures = Figures::default();
    for run in 0..=start.runs {
        let begin = Instant::now();
        let mut child = Running::spawn(&program, &data, guard.directory())?;
        child.ready()?;
        let took = begin.elapsed();
        if run == 0 {
            say(&format!("The first start, which prepares the data, took {} ms.", took.as_millis()));
            continue;
        }
        thread::sleep(IDLE_AFTER);
        let memory = Memory::of(&Watched { name: "the program".into(), pid: child.process.id() as i32 })?;
        figures.add("ready after", "ms", took.as_secs_f64() * 1e3);
        figures.add("idle memory (RSS)", "MB", memory.rss as f64 / 1e6);
        figures.add("idle memory (PSS)", "MB", memory.pss as f64 / 1e6);
    }
    figures.add("size of the program", "MB", fs::metadata(&program)?.len() as f64 / 1e6);
    show(start.json, &format!("start: {}", program.display()), &figures);
    Ok(())
}

struct Running {
    process: Child,
    admin: u16,
    log: PathBuf,
}

impl Running {
    fn spawn(program: &Path, data: &Path, work: &Path) -> anyhow::Result<Self> {
        let (port, log) = (free_ports(2)?, work.join("log"));
        let output = fs::File::create(&log)?;
        let mut command = Command::new(program);
        command
            .env("CONFAB_LISTEN", format!("127.0.0.1:{port}"))
            .env("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1));
        command.env("CONFAB_DATA_DIR", data).current_dir(work);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { process: command.spawn()?, admin: port + 1, log })
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.is_ready().unwrap_or(false) {
            if self.process.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the program does not become ready: {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    fn is_ready(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}
