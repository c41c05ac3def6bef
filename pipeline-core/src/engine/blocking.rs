//! Work that keeps a thread busy, away from the threads that run tasks.
//!
//! Owns [`run`] and its budget: so much of such work goes on at once in this process, the rest waits. What nobody waits
//! for any more is told to [`Stop`]. Must not know what the work is.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use super::scope::panic_words;
use crate::error::{ErrorKind, StepError};

/// Most threads that blocking work takes at once: as many as the machine can run, and never so many that their memory
/// adds up.
static BUDGET: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(lanes()));

/// Into how many pieces it pays to cut work: the budget.
pub fn lanes() -> usize {
    available_parallelism().map_or(2, NonZero::get).clamp(2, 8)
}

/// Tells work that nobody waits for it any more. A thread cannot be stopped from outside, so work must look.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether to give up.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the flag when the future that waits is dropped.
struct Waiting(Stop);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread for blocking work, as soon as the budget has room.
///
/// When this future is dropped, `work` is not started, or finds [`Stop`] set; the room it takes in the budget is given
/// back when it has really ended.
///
/// # Errors
/// `Panicked` when it panicked, `Cancelled` when the runtime is being shut down.
pub async fn run<T, F>(work: F) -> Result<T, StepError>
where
    F: FnOnce(&Stop) -> T + Send + 'static,
    T: Send + 'static,
{
    let stopped = || StepError::new(ErrorKind::Cancelled, "it was stopped");
    let permit = BUDGET.acquire().await.map_err(|_| stopped())?;
    let waiting = Waiting(Stop::default());
    let stop = waiting.0.clone();
    #[expect(clippy::disallowed_methods, reason = "this is the function with the budget")]
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&stop)
    });
    match task.await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => {
                let words = panic_words(panic.as_ref());
                Err(StepError::new(ErrorKind::Panicked, format!("the step's code panicked: {words}")))
            }
            Err(_) => Err(stopped()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    /// Naive: `spawn_blocking` alone takes up to 512 threads.
    #[tokio::test]
    async fn no_more_than_the_budget_goes_on_at_once() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..40).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            run(move |_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(2));
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures_util::future::join_all(all).await;
        assert!((1..=lanes()).contains(&most.load(Ordering::SeqCst)));
    }

    /// Naive: a dropped `spawn_blocking` works on, and nobody knows.
    #[tokio::test]
    async fn what_nobody_waits_for_is_told_to_stop() {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (ended, has_ended) = mpsc::channel();
        let work = run(move |stop| {
            started.send(()).unwrap();
            while !stop.is_set() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        tokio::select! {
            _ = work => panic!("it ended by itself"),
            told = has_started => told.unwrap(),
        }
        has_ended.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    }

    #[tokio::test]
    async fn a_panic_comes_back_as_data() {
        let error = run(|_| -> () { panic!("out of cheese") }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Panicked);
        assert!(error.message.ends_with("out of cheese"));
    }
}
