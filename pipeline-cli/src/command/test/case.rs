//! What a file of cases says.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_core::value::Value;
use serde::Deserialize;

use crate::exit::Failure;
use crate::sources::reason;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The pipeline file, relative to this one.
    pub pipeline: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Inputs of the run.
    #[serde(default)]
    pub inputs: BTreeMap<String, Value>,
    /// Mock rules, as `--mock-rules` takes them.
    #[serde(default)]
    pub mock: Value,
    /// A file of mock rules, relative to this one.
    pub mock_rules: Option<String>,
    /// A tape to answer from, relative to this file.
    pub replay: Option<String>,
    /// Further arguments of `pipeline run`.
    #[serde(default)]
    pub args: Vec<String>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// Outputs, statuses and files must be those of the stored snapshot.
    #[serde(default)]
    pub snapshot: bool,
}

/// What must come of a case. What is not said is not compared.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Status of the run; `ok` when neither this nor `exit` is said.
    pub status: Option<String>,
    /// Exit code of the program.
    pub exit: Option<i32>,
    /// Outputs, by name. Those that are not named are free.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// Steps, by the path of the instance (`fan[0]/think`).
    #[serde(default)]
    pub steps: BTreeMap<String, StepExpect>,
    /// Names of the top-level steps that ran, in the order in which they ended.
    pub path: Option<Vec<String>>,
    /// Model calls in all.
    pub calls: Option<u64>,
    /// Most model calls.
    pub max_calls: Option<u64>,
    /// Most US dollars.
    pub max_cost_usd: Option<f64>,
    /// Output files: a text that the file must hold, or null for a file that must not be there.
    #[serde(default)]
    pub files: BTreeMap<String, Option<String>>,
    /// A text that the error must hold.
    pub error: Option<String>,
}

/// What must come of a step.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepExpect {
    /// Status.
    pub status: Option<String>,
    /// Ended attempts.
    pub attempts: Option<u64>,
    /// Value; of a map only the named fields.
    pub value: Option<Value>,
}

/// Reads a file of cases.
///
/// # Errors
/// A usage [`Failure`] that names the file.
pub fn read(path: &Path, shown: &str) -> Result<Suite, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read {shown}: {}", reason(&error)))
            .help("name a file of cases, or a directory with such files; `pipeline init` writes one")
    })?;
    // As in pipeline files: `yes` is a text.
    let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
    serde_yaml::from_str_with_options(&text, options).map_err(|error| {
        Failure::usage(format!("{shown} is not a file of cases: {error}"))
            .help("it has `pipeline:` and a list `cases:`, each with `name`, `inputs`, `mock` and `expect`")
    })
}
