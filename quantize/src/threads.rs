//! The threads that everything here works with.

use crate::error::ConvertError;

/// More would only cost memory: what `RAYON_NUM_THREADS` asks for beyond is not believed.
const MOST: usize = 1024;

/// Runs `f` on so many threads, without a number on one for each CPU, or as many as
/// `RAYON_NUM_THREADS` says.
///
/// Where nobody said how many, and the system refuses them, the calling thread does without: rayon's own
/// pool would panic.
pub(crate) fn on_threads<T: Send>(
    wanted: Option<usize>,
    f: impl FnOnce() -> Result<T, ConvertError> + Send,
) -> Result<T, ConvertError> {
    let builder = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads);
    let failed = |error: rayon::ThreadPoolBuildError| {
        let (threads, cause) = (wanted.unwrap_or(1), error.to_string());
        ConvertError::Threads { threads, cause }
    };
    let pool = match wanted {
        Some(threads) => builder(threads.max(1)).build().map_err(failed)?,
        None => match builder(of_environment()).build() {
            Ok(pool) => pool,
            // Once a pool has this thread, it keeps it.
            Err(_) if rayon::current_thread_index().is_some() => return f(),
            Err(_) => builder(1).use_current_thread().build().map_err(failed)?,
        },
    };
    pool.install(f)
}

/// What `RAYON_NUM_THREADS` says if that is possible, else the number of CPUs.
fn of_environment() -> usize {
    let said = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    match said {
        Some(threads @ 1..=MOST) => threads,
        _ => std::thread::available_parallelism().map_or(1, usize::from),
    }
}
