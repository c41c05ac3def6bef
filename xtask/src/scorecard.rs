//! What the scorecard of reliability has on it.
//!
//! Owns the table: each test's id, where its parts are, how many trials it makes, and the bugs that it must find. Must not know
//! how they are run: `reliability.rs`.

/// One test of the scorecard.
#[derive(Debug)]
pub struct Test {
    /// `T1` to `T18`.
    pub id: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The tests that it is made of.
    pub parts: &'static [Part],
    /// Trials where their number is a matter of choice.
    pub quick: u32,
    /// The same, at night.
    pub full: u32,
    /// Bugs that it must find; pipeline-core/src/planted.rs has them.
    pub bugs: &'static [&'static str],
}

/// One test in a crate.
#[derive(Debug)]
pub struct Part {
    /// The package it is in.
    pub package: &'static str,
    /// `tests` for those in the folder of that name, `unit` for those in the sources.
    pub target: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
}

/// What a part needs beside its build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing. Files on a disk are beside the point, and are in memory where there is a folder for that.
    Nothing,
    /// A real disk.
    Disk,
    /// Code that was optimised.
    Speed,
}

const fn part(package: &'static str, target: &'static str, name: &'static str) -> Part {
    Part { package, target, name, needs: Needs::Nothing }
}

/// The stored inputs of a fuzzer.
const fn stored(package: &'static str, name: &'static str) -> Part {
    part(package, "unit", name)
}

/// All of them.
pub const TESTS: &[Test] = &[
    Test {
        id: "T1",
        about: "kill -9 at every call of a checkpoint",
        parts: &[part(
            "pipeline-cli",
            "tests",
            "faults::t01_killed_at_every_call_of_a_checkpoint_it_loses_nothing_that_it_told",
        )],
        quick: 40,
        full: 5_000,
        bugs: &["ack-before-write"],
    },
    Test {
        id: "T2",
        about: "power cuts",
        parts: &[part("pipeline-checkpoint", "tests", "power::t02_what_was_acknowledged_survives_the_power")],
        quick: 40,
        full: 400,
        bugs: &["skip-flush"],
    },
    Test {
        id: "T3",
        about: "torn and flipped bytes",
        parts: &[part("pipeline-checkpoint", "tests", "reliability::t03_no_damaged_byte_is_accepted")],
        quick: 200,
        full: 10_000,
        bugs: &["skip-last-field"],
    },
    Test {
        id: "T4",
        about: "calls of the disk that fail",
        parts: &[part(
            "pipeline-cli",
            "tests",
            "faults::t04_after_a_call_that_failed_nothing_is_told_as_done",
        )],
        quick: 1,
        full: 1,
        bugs: &["retry-flush"],
    },
    Test {
        id: "T5",
        about: "many processes and one run",
        parts: &[part(
            "pipeline-checkpoint",
            "tests",
            "reliability::t05_of_all_processes_that_want_a_run_one_has_it_at_a_time",
        )],
        quick: 150,
        full: 5_000,
        bugs: &["no-owner"],
    },
    Test {
        id: "T6",
        about: "a wide fan-out with panics and hangs",
        parts: &[part(
            "pipeline-core",
            "tests",
            "fan_out::t06_a_wide_fan_out_with_panics_and_hangs_loses_nothing_and_leaves_nothing",
        )],
        quick: 1,
        full: 50,
        bugs: &["bare-spawn"],
    },
    Test {
        id: "T7",
        about: "stopped, and no process left",
        parts: &[part("pipeline-cli", "tests", "orphans::t07_a_run_that_is_stopped_leaves_no_process")],
        quick: 60,
        full: 1_000,
        bugs: &["kill-on-drop"],
    },
    Test {
        id: "T8",
        about: "faults of services, bounded",
        parts: &[
            part(
                "pipeline-providers",
                "tests",
                "http::matrix::n04_t08_every_fault_of_every_provider_is_told_by_its_kind",
            ),
            part(
                "pipeline-providers",
                "tests",
                "http::matrix::n19c_t08_no_answer_without_end_is_read_beyond_its_limit",
            ),
        ],
        quick: 1,
        full: 1,
        bugs: &["connect-timeout"],
    },
    Test {
        id: "T9",
        about: "simulated schedule, engine and store",
        parts: &[Part {
            package: "pipeline-checkpoint",
            target: "unit",
            name: "simulation::t09_any_graph_through_any_cuts_and_stops_ends_the_same",
            needs: Needs::Speed,
        }],
        quick: 100_000,
        full: 2_000_000,
        bugs: &["ready-set", "skip-flush"],
    },
    Test {
        id: "T10",
        about: "any text in place of the right one",
        parts: &[
            part("pipeline-core", "tests", "fuzz::t10_any_text_gives_a_plan_or_findings"),
            part("pipeline-core", "tests", "expr_fuzz::t10_any_text_gives_a_value_or_an_error"),
            part(
                "pipeline-steps",
                "unit",
                "file_ops::convert::xml::tests::t10_any_document_gives_a_value_or_an_error",
            ),
            part(
                "pipeline-providers",
                "unit",
                "http::sse::tests::t10_any_bytes_in_any_pieces_give_the_same_events",
            ),
            stored("pipeline-core", "fuzz::tests::t10_stored_expressions_give_a_value_or_an_error"),
            stored("pipeline-steps", "fuzz::tests::t10_stored_pipeline_files_give_a_plan_or_findings"),
            stored("pipeline-steps", "fuzz::tests::t10_stored_documents_are_converted_or_refused"),
            stored("pipeline-checkpoint", "fuzz::tests::t10_stored_journals_are_read_or_refused"),
            stored("pipeline-checkpoint", "fuzz::tests::t10_stored_tapes_are_read_or_refused"),
            stored(
                "pipeline-providers",
                "fuzz::tests::t10_stored_lines_of_agents_give_an_answer_or_an_error",
            ),
            stored(
                "pipeline-providers",
                "fuzz::tests::t10_stored_streams_give_the_same_events_in_any_pieces",
            ),
            stored("pipeline-providers", "fuzz::tests::t10_stored_answers_of_services_are_read_or_refused"),
            stored("pipeline-cli", "args::fuzz::tests::t10_stored_command_lines_are_read_or_refused"),
        ],
        quick: 10_000,
        full: 1_000_000,
        bugs: &["index-by-span"],
    },
    Test {
        id: "T11",
        about: "small files that want to be large",
        parts: &[part("pipeline-cli", "tests", "bombs::t11_no_small_file_takes_the_machine")],
        quick: 1,
        full: 1,
        bugs: &["raise-budget"],
    },
    Test {
        id: "T12",
        about: "paths",
        parts: &[part("pipeline-steps", "unit", "escapes::x13_t12_no_path_leaves_its_root_whatever_uses_it")],
        quick: 2_000,
        full: 200_000,
        bugs: &["join-paths"],
    },
    Test {
        id: "T13",
        about: "secrets in what is written",
        parts: &[part("pipeline-cli", "tests", "secrets::t13_no_secret_is_in_any_byte_that_is_written")],
        quick: 12,
        full: 2_000,
        bugs: &["log-request"],
    },
    Test {
        id: "T14",
        about: "addresses that may not be reached, and ways out of a sandbox",
        parts: &[
            part(
                "pipeline-tools",
                "unit",
                "http::tests::t14_no_spelling_of_a_near_address_is_fetched_although_every_host_is_listed",
            ),
            part("pipeline-cli", "tests", "sandbox::t14_no_program_gets_out_of_the_sandbox"),
        ],
        quick: 1,
        full: 20,
        bugs: &["resolve-once", "no-namespace"],
    },
    Test {
        id: "T15",
        about: "poisoned answers",
        parts: &[part("pipeline-cli", "tests", "poison::t15_what_a_model_says_is_never_more_than_text")],
        quick: 1,
        full: 1,
        bugs: &["render-twice", "splice-script"],
    },
    Test {
        id: "T16",
        about: "journals that end anywhere",
        parts: &[part(
            "pipeline-cli",
            "tests",
            "cuts::t16_x10_x27_a_journal_that_ends_anywhere_is_gone_on_with_to_the_same_end",
        )],
        quick: 300,
        full: 20_000,
        bugs: &["forget-last"],
    },
    Test {
        id: "T17",
        about: "one process that makes runs for long",
        parts: &[part(
            "pipeline-cli",
            "unit",
            "soak::t17_n08c_x19_a_process_that_makes_runs_for_long_holds_no_more_than_at_first",
        )],
        quick: 400,
        // An hour and a bit.
        full: 120_000,
        bugs: &["bare-spawn"],
    },
    Test {
        id: "T18",
        about: "killed with stubborn children in sandboxes",
        parts: &[part(
            "pipeline-cli",
            "tests",
            "orphans::t18_n08a_x10_a_run_that_is_killed_in_a_sandbox_loses_nothing_and_leaves_no_process",
        )],
        quick: 20,
        full: 500,
        bugs: &["no-namespace"],
    },
];
