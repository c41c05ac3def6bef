//! `cargo xtask models`: code of several threads under a model checker.
//!
//! Owns which crates have models, and how they are built: with `--cfg shuttle`, where the locks of `pipeline_core::sync` are the
//! checker's, in a folder of their own. Must not know what a model does; each is beside what it is of.

use anyhow::Result;

use crate::repo::Repo;
use crate::report::Verdict;

/// Who has models: their tests are all in modules of that name.
const CRATES: [&str; 3] = ["pipeline-core", "pipeline-checkpoint", "pipeline-tools"];

/// Runs all models, and the naive versions that must fail.
pub fn run(repo: &Repo) -> Result<Verdict> {
    let mut args = vec!["test", "--quiet", "--lib", "--target-dir", "target/models"];
    args.extend(CRATES.iter().flat_map(|name| ["--package", name]));
    args.push("models::");
    repo.run_in("cargo", &args, &[("RUSTFLAGS", "--cfg shuttle"), ("RUST_BACKTRACE", "0")])?;
    Ok(Verdict::Passed(format!("the models of {}", CRATES.join(", "))))
}
