//! Stored inputs of the fuzzers, given to the same functions again.
//!
//! Owns [`replay`]: the seeds in `fuzz/corpus` and whatever once was a crash, in `fuzz/regressions`, so that it stays found on
//! any compiler. Must not know what a target does with an input.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::trials::Trials;

/// Far more than any of them takes, also where nothing is optimised and the machine is busy.
const SLOWEST: Duration = Duration::from_secs(10);

/// Gives every stored input of a target to the function that its fuzzer starts. `id` is the test's on the scorecard.
///
/// # Panics
/// When one of them panics or takes too long, when there is none, and where the folder `fuzz` of the repository is not there.
#[expect(clippy::disallowed_methods, reason = "a hang is seen by the clock")]
pub fn replay(id: &'static str, target: &str, entry: fn(&[u8])) {
    let trials = Trials::of(id, 0);
    for path in inputs(target) {
        let name = path.display().to_string();
        trials.try_out(&name, || {
            let bytes = fs::read(&path);
            assert!(bytes.is_ok(), "it cannot be read: {bytes:?}");
            let begun = Instant::now();
            entry(&bytes.unwrap_or_default());
            assert!(begun.elapsed() < SLOWEST, "it took {:?}", begun.elapsed());
        });
    }
    let count = trials.made();
    trials.finish(format!("{count} stored inputs of the fuzzer `{target}`"));
}

/// The files of a target, in the order of their names.
fn inputs(target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut all: Vec<PathBuf> = ["corpus", "regressions"]
        .iter()
        .filter_map(|kind| fs::read_dir(fuzz.join(kind).join(target)).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect();
    all.sort();
    all
}
