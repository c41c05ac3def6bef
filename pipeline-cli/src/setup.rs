//! What a run must remember beside its plan, so that any later process can go on with it.
//!
//! Owns [`Kept`], the `settings` of a manifest, and how it becomes a [`RunSetup`]. Must not read the environment or the
//! command line: whoever makes a [`Kept`] has done that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_core::engine::RunSetup;
use pipeline_core::plan::Budget;
use pipeline_core::redact;
use pipeline_core::schedule::LastingVariables;
use pipeline_core::step::{self, RunDirs, RunInfo};
use pipeline_core::store::Manifest;
use pipeline_core::value::{Data, Value};
use serde::{Deserialize, Serialize};

use crate::args::{Limits, Permissions};
use crate::exit::Failure;
use crate::settings::Settings;
use crate::taping::Taping;

/// What the composition root stores in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Where the command was started.
    pub working: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// Where output files go.
    pub output: PathBuf,
    /// Further roots that may be read.
    pub read: Vec<PathBuf>,
    /// Further roots that may be written.
    pub write: Vec<PathBuf>,
    /// What steps may do beside reading and writing.
    #[serde(default)]
    pub permissions: step::Permissions,
    /// Limits from the command line.
    pub limits: Budget,
    /// `--until`.
    pub until: Option<String>,
    /// `--set`.
    pub state: BTreeMap<String, Data>,
    /// Variables of scope `session`, as they were when the run began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lasting: LastingVariables,
    /// Values of the variables that the pipeline may read, without those that are secret.
    pub env: BTreeMap<String, String>,
    /// Names of the secret ones that were set. Their values are nowhere stored: each process reads them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// The file of mock rules.
    pub mock_rules: Option<RulesText>,
    /// What is invented follows from it.
    pub seed: u64,
    /// The run that this one took over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// `--record` or `--replay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taping: Option<Taping>,
}

/// A file of mock rules as it was when the run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesText {
    /// How messages call it.
    pub name: String,
    /// The rules.
    pub text: String,
}

impl RulesText {
    /// The `seed` that the rules name; 0 when they name none. Rules that cannot be read are refused elsewhere.
    pub fn seed(&self) -> u64 {
        #[derive(Deserialize)]
        struct Seed {
            #[serde(default)]
            seed: u64,
        }
        serde_yaml::from_str::<Seed>(&self.text).map_or(0, |rules| rules.seed)
    }
}

impl Kept {
    /// What the manifest remembers.
    ///
    /// # Errors
    /// [`Failure`] when it was written by a version that keeps other things.
    pub fn of(manifest: &Manifest) -> Result<Self, Failure> {
        serde_json::from_value(manifest.settings.clone()).map_err(|error| {
            let run = &manifest.run_id;
            Failure::environment(format!("the settings of run {run} cannot be read: {error}"))
                .help(format!("it was created by version {}; use that one", manifest.program))
        })
    }

    /// The form that a manifest stores.
    ///
    /// # Errors
    /// [`Failure`] for a path that is not Unicode.
    pub fn to_value(&self) -> Result<Value, Failure> {
        serde_json::to_value(self).map_err(|error| {
            Failure::environment(format!("the settings of the run cannot be stored: {error}"))
                .help("use directories whose names are Unicode")
        })
    }

    /// Widens what the run may reach, and says whether programs have a sandbox. Relative directories mean where the flags were
    /// given, which for a resume need not be where the run began.
    pub fn allow(&mut self, more: &Permissions, settings: &Settings) {
        let here = &settings.working;
        self.permissions.sandbox = settings.sandbox(self.permissions.sandbox, &more.sandboxing);
        self.read.extend(more.allow_read.iter().map(|dir| here.join(dir)));
        self.write.extend(more.allow_write.iter().map(|dir| here.join(dir)));
        if more.allow_shell {
            self.permissions.shell = vec!["*".to_owned()];
        }
    }

    /// Replaces the limits that are given anew.
    pub fn limit(&mut self, limits: &Limits) {
        if limits.max_cost_usd.is_some() {
            self.limits.max_cost_usd = limits.max_cost_usd;
        }
        if let Some(most) = limits.max_parallel {
            self.limits.max_parallel = usize::try_from(most).ok();
        }
        if limits.timeout.is_some() {
            self.limits.max_duration = limits.timeout;
        }
    }

    /// Gives the run leave to read these variables.
    pub fn let_read(&mut self, names: &[String], settings: &Settings) {
        self.env = settings.select(names);
        self.secret_env = self.env.keys().filter(|name| Settings::sounds_secret(name)).cloned().collect();
        self.env.retain(|name, _| !self.secret_env.contains(name));
    }

    /// Puts the values of secret variables, as they are now, into what the engine is given.
    ///
    /// # Errors
    /// [`Failure`] that names those that are not set any more.
    pub fn reveal(&self, setup: &mut RunSetup, settings: &Settings) -> Result<(), Failure> {
        let gone = self.reveal_some(setup, settings).join(", ");
        if gone.is_empty() {
            return Ok(());
        }
        Err(Failure::environment(format!("the run reads {gone}, which is not set any more"))
            .help("set it as it was when the run began: the value of a secret is not stored"))
    }

    /// Like [`Kept::reveal`], for those who only look: gives the names of variables that are not set any more.
    pub fn reveal_some(&self, setup: &mut RunSetup, settings: &Settings) -> Vec<&str> {
        let values = settings.select(&self.secret_env);
        let gone =
            self.secret_env.iter().map(String::as_str).filter(|name| !values.contains_key(*name)).collect();
        setup.env.extend(values);
        gone
    }

    /// What the engine is given for the run of `manifest`, whose own directory is `run_dir`. Secret variables are not in
    /// it yet ([`Kept::reveal`]): a mark stands for each, which is enough to look at a run.
    pub fn setup(&self, manifest: &Manifest, run_dir: PathBuf) -> RunSetup {
        // Two above the run's own: see [`run_dir`].
        let state = run_dir.ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
        let dirs = RunDirs {
            working: self.working.clone(),
            pipeline: manifest.pipeline_dir.clone(),
            workspace: self.workspace.clone(),
            output: self.output.clone(),
            run: run_dir,
            read: self.read.clone(),
            write: self.write.clone(),
            state,
        };
        let marked = self.secret_env.iter().map(|name| (name.clone(), redact::MARK.to_owned()));
        let replayed = self.taping.as_ref().and_then(Taping::replayed);
        RunSetup {
            info: RunInfo {
                id: manifest.run_id.clone(),
                workflow: manifest.workflow.clone(),
                started_at: replayed.map_or(manifest.created_at, |run| run.started_at),
                seed: self.seed,
                mock: replayed.map_or(&manifest.mode, |run| &run.mode) == "mock",
                dirs,
                permissions: self.permissions.clone(),
            },
            inputs: manifest.inputs.clone(),
            env: self.env.clone().into_iter().chain(marked).collect(),
            state: self.state.clone(),
            lasting: self.lasting.clone(),
            limits: self.limits.clone(),
            until: self.until.clone(),
        }
    }
}

/// A run's own directory.
pub fn run_dir(state_dir: &Path, run: &str) -> PathBuf {
    state_dir.join("runs").join(run)
}

/// Checks an id that a person chose: it becomes the name of a directory.
///
/// # Errors
/// A usage [`Failure`].
pub fn check_run_id(id: &str) -> Result<(), Failure> {
    let is_plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if (1..=128).contains(&id.len()) && is_plain && !id.starts_with('-') {
        return Ok(());
    }
    Err(Failure::usage(format!("`{id}` cannot be the id of a run"))
        .help("use up to 128 letters, digits, `-` and `_`, and do not begin with `-`"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::args::Sandboxing;
    use pipeline_core::clock::Timestamp;
    use pipeline_core::value::Hash;
    use serde_json::json;
    use std::time::Duration;

    pub(crate) fn manifest(settings: Value) -> Manifest {
        Manifest {
            run_id: "r1".to_owned(),
            workflow: "demo".to_owned(),
            source_path: "demo.yaml".to_owned(),
            pipeline_dir: "/p".into(),
            source_hash: Hash::of_bytes(b""),
            plan: Hash::of_bytes(b"plan"),
            mode: "mock".to_owned(),
            inputs: BTreeMap::from([("topic".to_owned(), Data::new(json!("rust")))]),
            settings,
            created_at: Timestamp(1_700_000_000_000),
            program: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_resume_has_what_the_run_began_with() {
        let mut kept = Kept { working: "/w".into(), seed: 7, until: Some("b".to_owned()), ..Kept::default() };
        kept.limit(&Limits { timeout: Some(Duration::from_millis(1500)), ..Limits::default() });
        let more = Permissions {
            allow_read: vec!["docs".into()],
            allow_write: vec!["/abs".into()],
            allow_shell: true,
            sandboxing: Sandboxing { sandbox: true, no_sandbox: false },
        };
        let mut settings = Settings::default();
        settings.working = "/here".into();
        kept.allow(&more, &settings);
        kept.state.insert("x".to_owned(), Data::new(json!([1])));
        kept.mock_rules = Some(RulesText { name: "r.yaml".to_owned(), text: "seed: 7".to_owned() });
        let stored = manifest(kept.to_value().unwrap());
        let again = Kept::of(&stored).unwrap();
        assert_eq!(again, kept);
        let setup = again.setup(&stored, run_dir(Path::new("/s"), "r1"));
        assert_eq!(setup.info.dirs.run, PathBuf::from("/s/runs/r1"));
        assert_eq!(setup.info.dirs.read, [PathBuf::from("/here/docs")]);
        assert_eq!(setup.info.dirs.write, [PathBuf::from("/abs")]);
        assert_eq!(setup.info.permissions.shell, ["*"]);
        assert!(setup.info.permissions.sandbox);
        assert_eq!(setup.info.dirs.state, PathBuf::from("/s"));
        assert_eq!(setup.limits.max_duration, Some(Duration::from_millis(1500)));
        assert_eq!(setup.inputs["topic"].json(), &json!("rust"));
        assert!(setup.info.mock);
    }

    #[test]
    fn new_limits_replace_only_what_they_name() {
        let mut kept = Kept::default();
        kept.limit(&Limits { max_cost_usd: Some(1.0), max_parallel: Some(2), timeout: None });
        kept.limit(&Limits { max_cost_usd: Some(5.0), ..Limits::default() });
        assert_eq!(kept.limits.max_cost_usd, Some(5.0));
        assert_eq!(kept.limits.max_parallel, Some(2));
    }

    /// Naive: the last one who speaks is heard, so that a resume without the flag has no sandbox.
    #[test]
    fn one_who_asks_for_the_sandbox_is_enough_and_only_a_flag_takes_it_away() {
        let with = |has: bool, configured: bool, flags: &Sandboxing| {
            let mut kept = Kept::default();
            kept.permissions.sandbox = has;
            let mut settings = Settings::default();
            settings.config.sandbox = configured;
            let more = Permissions { sandboxing: flags.clone(), ..Permissions::default() };
            kept.allow(&more, &settings);
            kept.permissions.sandbox
        };
        let none = Sandboxing::default();
        let on = Sandboxing { sandbox: true, ..Sandboxing::default() };
        let off = Sandboxing { no_sandbox: true, ..Sandboxing::default() };
        assert!(!with(false, false, &none));
        assert!(with(true, false, &none) && with(false, true, &none) && with(false, false, &on));
        assert!(!with(true, true, &off));
    }

    #[test]
    fn settings_of_another_kind_are_refused_with_their_version() {
        let failure = Kept::of(&manifest(json!({"working": 3}))).expect_err("refused");
        assert_eq!(failure.exit.code(), 3);
        assert!(failure.help.unwrap().contains("0.1.0"));
    }

    #[test]
    fn a_run_id_cannot_leave_its_directory() {
        for id in ["../x", "", "a/b", ".", "-x", "a b", &"x".repeat(129)] {
            assert!(check_run_id(id).is_err(), "{id}");
        }
        assert!(check_run_id("nightly_2026-01-01").is_ok());
    }

    #[test]
    fn the_seed_of_rules_is_found_and_zero_without_one() {
        let rules = |text: &str| RulesText { name: String::new(), text: text.to_owned() }.seed();
        assert_eq!(rules("seed: 9\nrules:\n  - text: x\n"), 9);
        assert_eq!(rules("rules: []\n"), 0);
    }
}
