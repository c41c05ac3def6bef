//! Trials of a property, counted and told in one form.
//!
//! Owns [`Trials`]: how many, from which seed, what went wrong, and the line `reliability: {…}` that
//! `cargo xtask reliability` collects; and [`Random`]. Without that command a test makes its own small number of trials.
//! Must not know what is tried.

use std::any::Any;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::json;

/// So many failures prove enough.
const ENOUGH: usize = 5;

/// The trials of one test. They may be made by many threads.
pub struct Trials {
    id: &'static str,
    wanted: u64,
    seed: u64,
    made: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Trials {
    /// The test of that id, which makes so many trials where nothing else is asked for.
    pub fn of(id: &'static str, few: u64) -> Self {
        let number = |name: &str, other: u64| asked(name).and_then(|text| text.parse().ok()).unwrap_or(other);
        Self {
            id,
            wanted: number("RELIABILITY_TRIALS", few),
            seed: number("RELIABILITY_SEED", 1),
            made: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    /// How many trials are to be made, where their number is not given by what is tried.
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The seed that everything random follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Makes one trial; an error says what went wrong, and how to see it again.
    pub fn make(&self, trial: impl FnOnce() -> Result<(), String>) {
        self.count(trial());
    }

    /// Makes one trial that fails by panicking.
    pub fn try_out(&self, name: &str, trial: impl FnOnce()) {
        let outcome = catch_unwind(AssertUnwindSafe(trial));
        self.count(outcome.map_err(|panic| format!("{name}: {}", words_of(&*panic))));
    }

    /// The same, where it waits for something.
    pub async fn try_while(&self, name: &str, trial: impl Future<Output = ()>) {
        let outcome = AssertUnwindSafe(trial).catch_unwind().await;
        self.count(outcome.map_err(|panic| format!("{name}: {}", words_of(&*panic))));
    }

    /// Counts a trial that was made.
    pub fn count(&self, outcome: Result<(), String>) {
        self.made.fetch_add(1, Ordering::Relaxed);
        if let Err(failure) = outcome {
            self.failures.lock().push(failure);
        }
    }

    /// How many were made so far.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Whether more trials can tell anything new.
    pub fn go_on(&self) -> bool {
        self.failures.lock().len() < ENOUGH
    }

    /// Tells the figure.
    ///
    /// # Panics
    /// When a trial failed, with the first failures; when no trial was made.
    pub fn finish(self, figure: impl AsRef<str>) {
        let (made, failures) = (self.made.into_inner(), self.failures.into_inner());
        tell(&json!({
            "id": self.id,
            "figure": figure.as_ref(),
            "trials": made,
            "seed": self.seed,
            "failures": failures.len(),
        }));
        assert!(made > 0, "{} tried nothing", self.id);
        let mut shown = String::new();
        for failure in failures.iter().take(3) {
            // Writing to a string does not fail.
            let _ = write!(shown, "\n- {failure}");
        }
        assert!(failures.is_empty(), "{} of {made} trials of {} failed:{shown}", failures.len(), self.id);
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}

/// Says loudly that a test cannot be made on this machine, and why.
pub fn skip(id: &str, why: &str) {
    tell(&json!({"id": id, "skipped": why}));
}

/// Whether `cargo xtask reliability` asks, and not the suite of the crate.
pub fn is_asked() -> bool {
    asked("RELIABILITY_TRIALS").is_some()
}

#[expect(clippy::print_stdout, reason = "the line that is collected")]
fn tell(line: &serde_json::Value) {
    println!("reliability: {line}");
}

#[expect(clippy::disallowed_methods, reason = "how a test is told how much to do; in no program")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A small generator: the same numbers from the same seed, on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        // SplitMix64: any seed is a good one.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `limit`, and not `limit` itself.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.draw() % (limit.max(1) as u64)).unwrap_or(0)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }
}
