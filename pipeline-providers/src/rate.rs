//! How fast an account may be called: one account, whoever calls.
//!
//! Owns [`Rates`] and [`Account`]. An account is a service and a key; its requests and tokens of the minute are shared by
//! all branches, all runs of the process and, through a small locked file, all other processes. Callers of one process
//! come in turn, and only the first of them looks. Must not know providers. Next: `rate/signals.rs` (what a service tells), `rate/ledger.rs` (the arithmetic), `governed.rs` (the layer).

mod signals;
mod ledger;
mod shared;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::ProviderLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rate::ledger::{Answer, Booked, Change, Ledger};
use crate::rate::shared::Shared;

pub use ledger::Want;
pub use signals::{RateSignals, Window};

/// How often it is looked whether a call of another process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Every account of this process.
pub struct Rates {
    dir: Option<PathBuf>,
    time: Time,
    accounts: Mutex<BTreeMap<String, Arc<Account>>>,
}

/// Milliseconds that all who share an account agree on.
#[derive(Debug, Clone, Copy)]
enum Time {
    /// The machine's own count since it was started: the same in every process, and nobody can set it.
    Machine,
    /// Since a moment of this process; stands still where a test lets it.
    Since(Instant),
}

impl Rates {
    /// Accounts that are shared with other processes through files in `dir`.
    pub fn shared(dir: PathBuf) -> Self {
        Self { dir: Some(dir), time: Time::Machine, accounts: Mutex::default() }
    }

    /// Accounts of this process alone.
    pub fn of_process() -> Self {
        Self { dir: None, time: Time::Since(Instant::now()), accounts: Mutex::default() }
    }

    /// Counts time from `start` by the runtime's clock, which tests can pause. Whoever shares `dir` must use the same start.
    #[must_use]
    pub fn since(mut self, start: Instant) -> Self {
        self.time = Time::Since(start);
        self
    }

    /// The account that `key` identifies, made when it is asked for first; messages call it `name`. `limits` are what is
    /// configured; what the service tells makes them smaller, never larger.
    pub fn account(&self, name: &str, key: &str, limits: &ProviderLimits) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        let made = || {
            Arc::new(Account {
                name: name.to_owned(),
                time: self.time,
                store: Mutex::new(match &self.dir {
                    Some(dir) => Store::File(Box::new(Shared::new(dir, key))),
                    None => Store::Memory(Box::default()),
                }),
                waiting: Mutex::default(),
                limits: limits.clone(),
                calls: limits.max_parallel.map(|most| {
                    Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)))
                }),
                turn: tokio::sync::Mutex::default(),
            })
        };
        Arc::clone(accounts.entry(key.to_owned()).or_insert_with(made))
    }
}

/// What may be asked of a service with one key.
pub struct Account {
    name: String,
    time: Time,
    store: Mutex<Store>,
    /// Changes that wait for the file.
    waiting: Mutex<Vec<Change>>,
    limits: ProviderLimits,
    calls: Option<Arc<Semaphore>>,
    turn: tokio::sync::Mutex<()>,
}

enum Store {
    Memory(Box<Ledger>),
    File(Box<Shared>),
}

/// Leave for one call. Dropping it ends the call; [`Permit::settle`] says what it really used.
pub struct Permit {
    account: Arc<Account>,
    booked: Booked,
    is_settled: bool,
    _call: Option<OwnedSemaphorePermit>,
}

impl Account {
    /// Waits until a call of that size may be made.
    ///
    /// # Errors
    /// `RateLimited` with the wait when it would go beyond `deadline`; `Quota` when the account is used up; `Cancelled`.
    pub async fn acquire(
        self: &Arc<Self>,
        want: Want,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Permit, StepError> {
        let wait = async {
            let call = match &self.calls {
                Some(calls) => Arc::clone(calls).acquire_owned().await.ok(),
                None => None,
            };
            let booked = self.book(want, deadline).await?;
            Ok(Permit { account: Arc::clone(self), booked, is_settled: false, _call: call })
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                Err(StepError::new(ErrorKind::Cancelled, "it was stopped while it waited for its turn"))
            }
            permit = wait => permit,
            () = tokio::time::sleep_until(deadline) => Err(self.too_long(Duration::ZERO)),
        }
    }

    async fn book(&self, want: Want, deadline: Instant) -> Result<Booked, StepError> {
        // First come, first served: the others of this process wait behind this one.
        let _turn = self.turn.lock().await;
        loop {
            let wait = match self.apply(|ledger, limits, now| ledger.book(limits, want, now)) {
                Some(Answer::Go(booked)) => return Ok(booked),
                Some(Answer::UsedUp { ms }) => return Err(self.used_up(ms)),
                Some(Answer::Later { ms }) => Duration::from_millis(ms),
                Some(Answer::Full) | None => LOOK,
            };
            if Instant::now() + wait > deadline {
                return Err(self.too_long(wait));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// What the service told with an answer.
    pub fn hear(&self, signals: &RateSignals) {
        self.change(Change::Heard(signals.clone()));
    }

    /// The service refused a call; nobody calls before `after`.
    pub fn hold(&self, after: Duration, is_quota: bool) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.change(Change::Hold { ms, is_quota });
    }

    /// Waits until `deadline` at most are of no use to whoever asked.
    fn too_long(&self, wait: Duration) -> StepError {
        let message = format!(
            "the limits of `{}` leave no room for this call before its deadline (it would wait {:.1} s)",
            self.name,
            wait.as_secs_f64()
        );
        let mut error = StepError::new(ErrorKind::RateLimited, message)
            .help("let fewer steps run at once, raise `timeout`, or raise the provider's `limits`")
            .details(serde_json::json!({ "limiter": self.name }));
        error.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        error
    }

    fn used_up(&self, ms: u64) -> StepError {
        let message = format!("the account of `{}` is used up, as an earlier call was told", self.name);
        let mut error = StepError::new(ErrorKind::Quota, message)
            .help("wait until the limit resets, or use another provider")
            .details(serde_json::json!({ "limiter": self.name }));
        error.retry_after_ms = Some(ms);
        error
    }

    fn now(&self) -> u64 {
        match self.time {
            Time::Machine => machine_ms(),
            Time::Since(start) => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Does something to the ledger, after everything that waits; `None` when another process holds it just now.
    fn apply<T>(&self, work: impl FnOnce(&mut Ledger, &ProviderLimits, u64) -> T) -> Option<T> {
        let run = |ledger: &mut Ledger| {
            // Only whoever holds the ledger reads the time: what was read before another process was done would lie before
            // that one's, and time that runs backwards is taken for a new start of the machine.
            let now = self.now();
            ledger.begin(now);
            for change in self.waiting.lock().drain(..) {
                ledger.change(&self.limits, change, now);
            }
            work(ledger, &self.limits, now)
        };
        match &mut *self.store.lock() {
            Store::Memory(ledger) => Some(run(ledger)),
            Store::File(shared) => shared.with(run),
        }
    }

    fn change(&self, change: Change) {
        self.waiting.lock().push(change);
        // When the file is busy, whoever comes next does it.
        let _ = self.apply(|_, _, _| ());
    }
}

impl Permit {
    /// What the call used; `None` = nothing, it was refused. Others see it when the call ends, which is now, or when one of
    /// them asks.
    pub fn settle(&mut self, used: Option<Want>) {
        if !self.is_settled {
            self.is_settled = true;
            let used = used.unwrap_or(Want { requests: 0, input: 0, output: 0, is_counted: false });
            self.account.waiting.lock().push(Change::Settle { booked: self.booked, used });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.change(Change::End);
    }
}
/// Milliseconds on a clock that all processes of this machine share, and that nobody sets; where there is one.
fn machine_ms() -> u64 {
    #[cfg(unix)]
    {
        // Linux has one that goes on while the machine sleeps.
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    }
    #[cfg(not(unix))]
    u64::try_from(pipeline_core::clock::Clock::now(&pipeline_core::clock::SystemClock).0).unwrap_or(0)
}
