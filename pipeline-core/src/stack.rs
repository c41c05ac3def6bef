//! Room for deep recursion.
//!
//! Owns [`with_room`], the one place that starts a thread for its stack. Parsers recurse: a file at the depth limit overflows
//! the 2 MiB stack of a worker thread in a debug build, which aborts the process. Here it cannot.

use std::thread::Builder;

/// Bytes of stack: hundreds of times what the deepest allowed text needs.
const ROOM: usize = 32 << 20;

/// Runs `work` on a thread with a large stack and waits for it. A panic goes on in the caller.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = std::sync::Mutex::new(Some(work));
    let run = || work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().map(|work| work());
    std::thread::scope(|scope| {
        let result = match Builder::new().name("deep".to_owned()).stack_size(ROOM).spawn_scoped(scope, run) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread to be had: the caller's own stack must do.
            Err(_) => run(),
        };
        #[expect(clippy::expect_used, reason = "the work is taken exactly once, by whichever branch ran")]
        result.expect("the work ran")
    })
}
