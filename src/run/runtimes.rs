//! Heavy CPU work never blocks I/O: one runtime waits for files, one decodes.
use tokio::runtime::{Builder, Runtime};

use crate::error::{Context as _, Result, Stage};

/// Reads wait most of their time: two threads serve many.
const IO_THREADS: usize = 2;

/// The runtimes of one process.
#[derive(Debug)]
pub struct Runtimes {
    /// Queries and reads.
    pub io: Runtime,
    /// Decoding and augmentation, sized to the cores given to it.
    pub decode: Runtime,
    /// Threads of `decode`.
    pub decode_threads: usize,
}

impl Runtimes {
    /// `decode_threads` of a pipeline: 0 means one per core.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(decode_threads: usize) -> Result<Self> {
        let decode_threads = match decode_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let build = |name: &str, threads: usize| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                .enable_all()
                .build()
                .context(Stage::Internal, name, "the system gives no threads")
        };
        Ok(Self { io: build("io", IO_THREADS)?, decode: build("decode", decode_threads)?, decode_threads })
    }
}
