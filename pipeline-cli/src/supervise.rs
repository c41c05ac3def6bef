//! A run under the eyes of somebody with a Ctrl-C key.
//!
//! Owns what SIGINT, SIGTERM and SIGHUP mean: the first asks the run to stop and save its state, the second ends the program at
//! once. Must not know what runs.

use std::convert::Infallible;
use std::future::{Future, pending};

use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// A request to stop, from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    HangUp,
}

impl Signal {
    /// The code of a run that it stopped.
    pub fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
            Self::HangUp => Exit::HungUp,
        }
    }
}

/// Where signals come from; in tests, not from the system.
pub trait Signals {
    /// Waits for the next one. Safe to drop and call again.
    fn next(&mut self) -> impl Future<Output = Signal> + Send;
}

/// The signals of this process.
pub struct ProcessSignals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// `None` where hang-ups are to be ignored, as `nohup` wants it.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl ProcessSignals {
    /// Takes the signals over: from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The system's, when it will not have it.
    #[cfg(unix)]
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = (!ignores_hang_up()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
        })
    }

    /// Takes Ctrl-C over.
    ///
    /// # Errors
    /// None here: where it fails, the key does what it always does.
    #[cfg(not(unix))]
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }
}

impl Signals for ProcessSignals {
    #[cfg(unix)]
    async fn next(&mut self) -> Signal {
        // `None` means that no signal can ever come again.
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = hung_up(&mut self.hang_up) => Signal::HangUp,
            else => pending().await,
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => pending().await,
        }
    }
}

#[cfg(unix)]
async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}

/// True when this process was started with SIGHUP ignored. Where the system does not tell, hang-ups are left as they are.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is the first of the mask.
    mask.is_none_or(|mask| mask & 1 == 1)
}

/// How supervised work came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<T> {
    /// It ended by itself, or because of the first signal, which is told.
    Work(T, Option<Signal>),
    /// A second signal came: nothing more is waited for.
    Abandoned(Signal),
}

/// Works until `work` is done, with `beside` going on as long (it must never end).
///
/// `on_stop` is told when the first signal has asked the work to stop.
pub async fn supervise<T>(
    work: impl Future<Output = T>,
    stop: &CancellationToken,
    signals: &mut impl Signals,
    mut on_stop: impl FnMut(Signal),
    beside: impl Future<Output = Infallible>,
) -> Ended<T> {
    let mut work = std::pin::pin!(work);
    let mut beside = std::pin::pin!(beside);
    let mut first = None;
    loop {
        tokio::select! {
            // Signals first: work that is always ready must not keep them waiting.
            biased;
            signal = signals.next() => {
                if first.is_some() {
                    return Ended::Abandoned(signal);
                }
                first = Some(signal);
                stop.cancel();
                on_stop(signal);
            }
            done = &mut work => return Ended::Work(done, first),
            never = &mut beside => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    struct Scripted(Vec<Signal>);

    impl Signals for Scripted {
        async fn next(&mut self) -> Signal {
            match self.0.pop() {
                Some(signal) => signal,
                None => pending().await,
            }
        }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// Naive: the signal ends the process, and what was not saved is lost.
    #[test]
    fn x11_the_first_signal_asks_and_waits_for_the_state_to_be_saved() {
        let stop = CancellationToken::new();
        let work = async {
            stop.cancelled().await;
            "saved"
        };
        let mut told = Vec::new();
        let mut signals = Scripted(vec![Signal::Terminate]);
        let ended = block_on(supervise(work, &stop, &mut signals, |s| told.push(s), pending()));
        assert_eq!(ended, Ended::Work("saved", Some(Signal::Terminate)));
        assert_eq!(told, [Signal::Terminate]);
        assert_eq!(Signal::Terminate.exit().code(), 143);
    }

    /// Naive: every signal asks politely, so that a step that does not stop holds the terminal.
    #[test]
    fn x11_the_second_signal_does_not_wait() {
        let stop = CancellationToken::new();
        let mut signals = Scripted(vec![Signal::Interrupt, Signal::Interrupt]);
        let never = pending::<()>();
        let ended = block_on(supervise(never, &stop, &mut signals, |_| {}, pending()));
        assert_eq!(ended, Ended::Abandoned(Signal::Interrupt));
        assert!(stop.is_cancelled());
    }

    #[test]
    fn without_signals_the_work_decides() {
        let stop = CancellationToken::new();
        let ended = block_on(supervise(async { 5 }, &stop, &mut Scripted(Vec::new()), |_| {}, pending()));
        assert_eq!(ended, Ended::Work(5, None));
        assert!(!stop.is_cancelled());
    }
}
