//! The allocator, how free memory gets back to the system, and how much there may be.

mod limit;

use std::hint::black_box;
use std::time::Duration;

use tokio::time::sleep;

pub use limit::limit;

/// That of all programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often free memory is given back.
const EVERY: Duration = Duration::from_secs(5);
/// Larger than anything that the allocator keeps at hand for a thread, in bytes.
const LARGE: usize = 4 * 1024 * 1024;

/// Has free memory given back to the system, for as long as it is polled. The allocator does that a second after memory has become free, but
/// only while a large block is taken or given back: an idle process would keep what a busy moment took, 19 MiB for each hash of a
/// password.
pub async fn give_back() {
    loop {
        sleep(EVERY).await;
        // Nothing is written to it, so that it takes no memory itself.
        drop(black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}
