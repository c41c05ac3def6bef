//! What the scorecard of reliability has on it.
//!
//! Owns the table: each test's id, where it is, how many trials it makes, and the bugs that it must find. Must not know how they
//! are run: `reliability.rs`.

/// One test of the scorecard.
#[derive(Debug)]
pub struct Test {
    /// `T1` to `T15`.
    pub id: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The package it is in.
    pub package: &'static str,
    /// `tests` for those in the folder of that name, `unit` for those in the sources.
    pub target: &'static str,
    /// The name of the test.
    pub name: &'static str,
    /// Trials where their number is a matter of choice.
    pub quick: u32,
    /// The same, at night.
    pub full: u32,
    /// Whether files on a disk are beside the point, and may be in memory.
    pub in_memory: bool,
    /// Bugs that it must find; pipeline-core/src/planted.rs has them.
    pub bugs: &'static [&'static str],
}

/// All of them.
pub const TESTS: &[Test] = &[
    Test {
        id: "T1",
        about: "kill -9 at every call of a checkpoint",
        package: "pipeline-cli",
        target: "tests",
        name: "faults::t01_killed_at_every_call_of_a_checkpoint_it_loses_nothing_that_it_told",
        quick: 40,
        full: 5_000,
        in_memory: true,
        bugs: &["ack-before-write"],
    },
    Test {
        id: "T3",
        about: "torn and flipped bytes",
        package: "pipeline-checkpoint",
        target: "tests",
        name: "reliability::t03_no_damaged_byte_is_accepted",
        quick: 200,
        full: 10_000,
        in_memory: true,
        bugs: &["skip-last-field"],
    },
    Test {
        id: "T4",
        about: "calls of the disk that fail",
        package: "pipeline-cli",
        target: "tests",
        name: "faults::t04_after_a_call_that_failed_nothing_is_told_as_done",
        quick: 1,
        full: 1,
        in_memory: true,
        bugs: &["retry-flush"],
    },
];
