//! The system's metrics of this process, under the names that all Prometheus clients use.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo};

use super::{at_scrape, counter, gauge};

/// Registers the metrics; each scrape reads them.
pub fn start() {
    let cpu = counter("process_cpu_seconds_total", "User and system CPU time spent, in whole seconds", &[]);
    let [resident, open, limit, threads, started] = [
        ("process_resident_memory_bytes", "Resident memory"),
        ("process_open_fds", "Open file descriptors"),
        ("process_max_fds", "Limit of file descriptors"),
        ("process_threads", "Threads"),
        ("process_start_time_seconds", "Start time of the process, in seconds since the epoch"),
    ]
    .map(|(name, help)| gauge(name, help, &[]));
    at_scrape(move || {
        let look = || -> ProcResult<()> {
            let process = Process::myself()?;
            let stat = process.stat()?;
            cpu.absolute((stat.utime + stat.stime) / procfs::ticks_per_second());
            resident.set(stat.rss_bytes().get() as f64);
            threads.set(stat.num_threads as f64);
            started.set(procfs::boot_time_secs()? as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64);
            open.set(process.fd_count()? as f64);
            limit.set(match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => most as f64,
                LimitValue::Unlimited => f64::INFINITY,
            });
            Ok(())
        };
        if let Err(error) = look() {
            tracing::debug!(%error, "cannot read the metrics of this process");
        }
    });
}
