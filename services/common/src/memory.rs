//! The allocator, the return of free memory to the system, and the memory limit.

mod limit;

use std::hint::black_box;
use std::time::Duration;

use tokio::time::sleep;

pub use limit::limit;

/// The allocator of all programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often free memory is returned to the system.
const RETURN_EVERY: Duration = Duration::from_secs(5);
/// A block size in bytes above everything that the allocator caches per thread.
const LARGE: usize = 4 * 1024 * 1024;

/// Returns free memory to the system for as long as the future is polled. The allocator returns memory one second after
/// it became free, but only when a large block is allocated or freed. Without this task an idle process keeps the
/// memory of its last busy moment, such as 19 MiB for each password hash.
pub async fn give_back() {
    loop {
        sleep(RETURN_EVERY).await;
        // Never written to, so the block occupies no memory.
        drop(black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}
