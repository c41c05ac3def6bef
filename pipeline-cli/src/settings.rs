//! What the surroundings say: environment variables, the working directory, whether somebody watches.
//!
//! Owns [`Settings`] and the order in which a flag, the environment, the pipeline file and a default win. The only
//! module that reads the environment. Must not know what commands do with it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use pipeline_core::plan::{self, Budget};

use crate::args::{Global, Limits, Sandboxing};
use crate::config::Config;
use crate::exit::Failure;

/// Variables that give a provider its credential, best first.
const CREDENTIALS: [(&str, &[&str]); 3] = [
    ("claude", &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]),
    ("gemini", &["GEMINI_API_KEY", "GOOGLE_API_KEY"]),
    ("openai", &["OPENAI_API_KEY"]),
];

/// Variables that child processes get, beside those that begin with `LC_`.
const CHILD_ENV: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "SYSTEMROOT",
];

/// Words in the names of variables that hold secrets.
const SECRET_WORDS: [&str; 10] = [
    "KEY",
    "APIKEY",
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "CREDENTIAL",
    "CREDENTIALS",
];

/// What the surroundings say, read once when the program starts.
#[expect(clippy::struct_excessive_bools, reason = "answers that have nothing to do with each other")]
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the program was started, absolute.
    pub working: PathBuf,
    /// Prints JSON.
    pub json: bool,
    /// Tells nothing but errors.
    pub quiet: bool,
    /// Tells of every step.
    pub verbose: bool,
    /// Standard output may carry colour.
    pub colour_out: bool,
    /// Standard error may carry colour.
    pub colour_err: bool,
    /// Somebody sits at a terminal and can answer.
    pub interactive: bool,
    /// Standard error is a terminal that can redraw a line.
    pub live: bool,
    /// `--log`, or more than one -v.
    log_flag: Option<String>,
    /// `--log-file`.
    log_file: Option<PathBuf>,
    /// What configuration files say.
    pub config: Config,
    /// `--state-dir`.
    library: Option<PathBuf>,
    state_flag: Option<PathBuf>,
    variables: BTreeMap<String, String>,
}

/// Which runs that have ended stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub keep: usize,
    /// Those of the last so many days.
    pub days: u32,
}

/// Which model calls a run makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real ones.
    Live,
    /// None: the mock answers.
    Mock,
    /// Real ones where there is a credential, else the mock.
    Mixed,
    /// None: a tape has what they answered.
    Replay,
}

impl Mode {
    /// The name that manifests have.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Mock => "mock",
            Self::Mixed => "mixed",
            Self::Replay => "replay",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Live, Self::Mock, Self::Mixed, Self::Replay].into_iter().find(|mode| mode.name() == name)
    }
}

impl Settings {
    /// Reads the surroundings of this process.
    ///
    /// # Errors
    /// [`Failure`] when there is no working directory.
    pub fn of_process(flags: &Global) -> Result<Self, Failure> {
        let working = std::env::current_dir().map_err(|error| {
            Failure::environment(format!("the working directory cannot be used: {error}"))
                .help("change to a directory that exists")
        })?;
        // A variable that is not Unicode cannot be one of ours.
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let terminals = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let config =
            Config::load(&working, |name| variables.get(name).filter(|value| !value.is_empty()).cloned())?;
        let answers = terminals.1 && std::io::stdin().is_terminal() && !flags.quiet;
        Ok(Self { interactive: answers, config, ..Self::new(flags, working, variables, terminals) })
    }

    /// The same from parts: what a test has. `terminals` is for standard output and standard error.
    pub fn new(
        flags: &Global,
        working: PathBuf,
        variables: BTreeMap<String, String>,
        terminals: (bool, bool),
    ) -> Self {
        let set = |name: &str| variables.get(name).is_some_and(|v| !v.is_empty());
        let forced = set("CLICOLOR_FORCE") && variables.get("CLICOLOR_FORCE").is_none_or(|v| v != "0");
        let dumb = variables.get("TERM").is_some_and(|term| term == "dumb");
        let debug = variables.get("PIPELINE_DEBUG").is_some_and(|v| v == "true" || v == "1");
        let colour = |terminal: bool| !set("NO_COLOR") && (forced || (terminal && !dumb));
        Self {
            json: flags.json,
            quiet: flags.quiet,
            verbose: flags.verbose > 0 || debug,
            colour_out: colour(terminals.0),
            colour_err: colour(terminals.1),
            interactive: false,
            config: Config::default(),
            live: terminals.1 && !dumb && !flags.quiet && !is_ci(&variables),
            log_flag: flags.log.clone().or((flags.verbose > 1).then(|| "debug".to_owned())),
            log_file: flags.log_file.clone(),
            state_flag: flags.state_dir.clone(),
            library: flags.library.clone(),
            working,
            variables,
        }
    }

    /// A variable that is set to something.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Those of `names` that are set, for expressions that were given leave to read them.
    pub fn select(&self, names: &[String]) -> BTreeMap<String, String> {
        names.iter().filter_map(|name| Some((name.clone(), self.variables.get(name)?.clone()))).collect()
    }

    /// Every variable, for configuration that names some: none of them may be shown.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The environment of child processes: what programs need to find their files and to speak the user's language, and
    /// nothing that could be a secret.
    pub fn child_env(&self) -> BTreeMap<String, String> {
        let is_given = |name: &str| CHILD_ENV.contains(&name) || name.starts_with("LC_");
        self.variables
            .iter()
            .filter(|(name, _)| is_given(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// What runs of this program that call models need of the environment: credentials and addresses of providers.
    pub fn credentials_env(&self) -> BTreeMap<String, String> {
        let given = |name: &str| {
            ["ANTHROPIC_", "GEMINI_", "GOOGLE_API_KEY", "OPENAI_", "OLLAMA_HOST"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        let pairs = self.variables.iter().filter(|(name, _)| given(name));
        pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// A path as seen from the working directory.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.working.join(path)
    }

    /// The limits of a run: those of flags, and the cap of a configuration file where neither a flag nor the pipeline has one.
    pub fn limits(&self, flags: &Limits, file: &Budget) -> Limits {
        let own = self.config.max_cost_usd.filter(|_| file.max_cost_usd.is_none());
        Limits { max_cost_usd: flags.max_cost_usd.or(own), ..flags.clone() }
    }

    /// The state directory: flag, `PIPELINE_CHECKPOINT_DIR`, the file's `checkpoint_dir`, configuration, `.pipeline`.
    pub fn state_dir(&self, file: Option<&plan::Settings>) -> PathBuf {
        let written = file.and_then(|f| f.checkpoint_dir.as_deref());
        let under = self.config.checkpoint_dir.as_deref().unwrap_or(Path::new(".pipeline"));
        self.directory(self.state_flag.as_deref(), "PIPELINE_CHECKPOINT_DIR", written, under)
    }

    /// Where the pipelines are that `pipeline_ref` names: the flag, else below the state directory.
    pub fn library(&self, state_dir: &Path) -> PathBuf {
        self.library.as_ref().map_or_else(|| state_dir.join("library"), |dir| self.absolute(dir))
    }

    /// Whether programs start in a sandbox: one who asks for it is enough (the pipeline file by `asked`, a flag,
    /// `PIPELINE_SANDBOX` with anything but `0` and `false`, or else configuration), and only a flag takes it away.
    pub fn sandbox(&self, asked: bool, flags: &Sandboxing) -> bool {
        let set = self.variable("PIPELINE_SANDBOX").map(|value| !matches!(value, "0" | "false"));
        (asked || flags.sandbox || set.unwrap_or(self.config.sandbox)) && !flags.no_sandbox
    }

    /// True in a job of GitHub Actions.
    pub fn is_github(&self) -> bool {
        self.variable("GITHUB_ACTIONS") == Some("true")
    }

    /// True where nobody can be asked: a build server says so.
    pub fn is_ci(&self) -> bool {
        is_ci(&self.variables)
    }

    /// Whether `--state-dir` was given.
    pub fn has_state_flag(&self) -> bool {
        self.state_flag.is_some()
    }

    /// The argument of `--state-dir` that a later command needs to find `state_dir`; `None` when it finds it anyway.
    pub fn state_flag_for(&self, state_dir: &Path) -> Option<String> {
        let under = self.config.checkpoint_dir.as_deref().unwrap_or(Path::new(".pipeline"));
        let found = self.directory(None, "PIPELINE_CHECKPOINT_DIR", None, under);
        if found == state_dir {
            return None;
        }
        let dir = state_dir.strip_prefix(&self.working).unwrap_or(state_dir).display().to_string();
        let is_plain = dir.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
        Some(if is_plain { dir } else { format!("'{}'", dir.replace('\'', "'\\''")) })
    }

    /// The workspace: flag, `PIPELINE_WORKSPACE_DIR`, the file's `workspace_dir`, `workspace`.
    pub fn workspace_dir(&self, flag: Option<&Path>, file: &plan::Settings) -> PathBuf {
        let under = self.config.workspace_dir.as_deref().unwrap_or(Path::new("workspace"));
        self.directory(flag, "PIPELINE_WORKSPACE_DIR", file.workspace_dir.as_deref(), under)
    }

    /// The output directory: flag, `PIPELINE_OUTPUT_DIR`, the file's `output_dir`, `outputs`.
    pub fn output_dir(&self, flag: Option<&Path>, file: &plan::Settings) -> PathBuf {
        let under = self.config.output_dir.as_deref().unwrap_or(Path::new("outputs"));
        self.directory(flag, "PIPELINE_OUTPUT_DIR", file.output_dir.as_deref(), under)
    }

    fn directory(&self, flag: Option<&Path>, variable: &str, file: Option<&str>, default: &Path) -> PathBuf {
        let path = flag
            .or_else(|| self.variable(variable).map(Path::new))
            .or(file.map(Path::new))
            .unwrap_or(default);
        // Without `.` and `..` the result reads well in messages; links are left to the system.
        crate::sources::plain(&self.absolute(path))
    }

    /// The mode: `--mock`, then `TEST_MODE`, then live.
    ///
    /// # Errors
    /// [`Failure`] for a `TEST_MODE` that is none of the three.
    pub fn mode(&self, mock: bool) -> Result<Mode, Failure> {
        if mock {
            return Ok(Mode::Mock);
        }
        let Some(name) = self.variable("TEST_MODE") else { return Ok(Mode::Live) };
        // A replay needs to know its tape, which only a flag names.
        Mode::named(name).filter(|mode| *mode != Mode::Replay).ok_or_else(|| {
            Failure::usage(format!("TEST_MODE is `{name}`, which is not a mode"))
                .help("set it to mock, mixed or live, or unset it")
        })
    }

    /// How much is logged; `None` = nothing: --log or -vv, PIPELINE_LOG_LEVEL, PIPELINE_DEBUG, and a log file means debug.
    pub fn log_level(&self) -> Option<&str> {
        let debug = self.variable("PIPELINE_DEBUG").is_some_and(|v| v == "true" || v == "1");
        let implied = (debug || self.log_file.is_some()).then_some("debug");
        self.log_flag.as_deref().or(self.variable("PIPELINE_LOG_LEVEL")).or(implied)
    }

    /// Where logs go, when not to standard error.
    pub fn log_file(&self) -> Option<PathBuf> {
        self.log_file.as_ref().map(|file| self.absolute(file))
    }

    /// How many runs stay when a new one has ended; `None` = all.
    ///
    /// # Errors
    /// [`Failure`] for a number that is none.
    pub fn retention(&self) -> Result<Option<Retention>, Failure> {
        let number = |name: &str, default: u32| match self.variable(name) {
            None => Ok(Some(default)),
            Some("all") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Failure::usage(format!("{name} is `{text}`, which is not a number"))
                    .help("set it to a number, or to `all` to keep every run")
            }),
        };
        let (runs, days) = (number("PIPELINE_KEEP_RUNS", 50)?, number("PIPELINE_KEEP_DAYS", 30)?);
        Ok(runs.zip(days).map(|(keep, days)| Retention { keep: keep as usize, days }))
    }

    /// Whether the value of a variable of that name must not be stored or shown.
    pub fn sounds_secret(name: &str) -> bool {
        name.to_ascii_uppercase().split('_').any(|word| SECRET_WORDS.contains(&word))
    }

    /// Values that must not be stored or shown: of variables that are credentials, and of all whose names sound like it.
    pub fn secrets(&self) -> Vec<&str> {
        self.variables
            .iter()
            .filter(|(name, _)| Self::sounds_secret(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Provider names with the variables that would give them a credential.
    pub fn credentials() -> &'static [(&'static str, &'static [&'static str])] {
        &CREDENTIALS
    }

    /// Whether the provider `name` has what it needs to be called. One that needs no credential always has.
    pub fn has_credential(&self, name: &str) -> bool {
        CREDENTIALS
            .iter()
            .find(|(provider, _)| *provider == name)
            .is_none_or(|(_, variables)| variables.iter().any(|v| self.variable(v).is_some()))
            || (name == "claude" && self.has_agent_login())
    }

    /// Whether the agent CLI was logged in by a person: it keeps its credential itself.
    fn has_agent_login(&self) -> bool {
        let home = || self.variable("HOME").map(|home| Path::new(home).join(".claude"));
        let dir = self.variable("CLAUDE_CONFIG_DIR").map(PathBuf::from).or_else(home);
        dir.is_some_and(|dir| dir.join(".credentials.json").is_file())
    }
}

fn is_ci(variables: &BTreeMap<String, String>) -> bool {
    variables.get("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn settings(flags: &Global, variables: &[(&str, &str)], terminals: (bool, bool)) -> Settings {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::new(flags, PathBuf::from("/home/me"), variables, terminals)
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = plan::Settings {
            checkpoint_dir: Some("from-file".to_owned()),
            output_dir: Some("./out".to_owned()),
            ..plan::Settings::default()
        };
        let flags = Global { state_dir: Some("from-flag".into()), ..Global::default() };
        let variables = [("PIPELINE_CHECKPOINT_DIR", "/from-env")];
        let cases = [
            (settings(&flags, &variables, (false, false)), Some(&file), "/home/me/from-flag"),
            (settings(&Global::default(), &variables, (false, false)), Some(&file), "/from-env"),
            (settings(&Global::default(), &[], (false, false)), Some(&file), "/home/me/from-file"),
            (settings(&Global::default(), &[], (false, false)), None, "/home/me/.pipeline"),
        ];
        for (settings, file, expected) in cases {
            assert_eq!(settings.state_dir(file), PathBuf::from(expected));
        }
        let plain = settings(&Global::default(), &[], (false, false));
        assert_eq!(plain.output_dir(None, &file), PathBuf::from("/home/me/out"));
        assert_eq!(plain.output_dir(Some(Path::new("../x")), &file), PathBuf::from("/home/x"));
        assert_eq!(plain.workspace_dir(None, &file), PathBuf::from("/home/me/workspace"));
    }

    #[test]
    fn a_hint_names_a_state_directory_only_when_it_would_not_be_found() {
        let flags = Global { state_dir: Some("my runs".into()), ..Global::default() };
        let settings = settings(&flags, &[], (false, false));
        assert_eq!(settings.state_flag_for(&settings.state_dir(None)).as_deref(), Some("'my runs'"));
        assert_eq!(settings.state_flag_for(Path::new("/home/me/.pipeline")), None);
        assert_eq!(settings.state_flag_for(Path::new("/data/p")).as_deref(), Some("/data/p"));
    }

    #[test]
    fn a_child_gets_what_it_needs_and_no_secret() {
        let given = [("PATH", "/bin"), ("LC_ALL", "C"), ("ANTHROPIC_API_KEY", "k"), ("AWS_SECRET", "s")];
        let child = settings(&Global::default(), &given, (false, false)).child_env();
        assert_eq!(child.keys().collect::<Vec<_>>(), ["LC_ALL", "PATH"]);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let settings = settings(
            &Global::default(),
            &[("PIPELINE_OUTPUT_DIR", ""), ("ANTHROPIC_API_KEY", "")],
            (false, false),
        );
        assert!(settings.output_dir(None, &plan::Settings::default()).ends_with("outputs"));
        assert!(!settings.has_credential("claude"));
    }

    #[test]
    fn colour_needs_a_terminal_unless_forced_and_no_color_forbids_it() {
        let colour = |variables: &[(&str, &str)], terminal| {
            settings(&Global::default(), variables, (terminal, terminal)).colour_err
        };
        assert!(colour(&[], true));
        assert!(!colour(&[], false));
        assert!(colour(&[("CLICOLOR_FORCE", "1")], false));
        assert!(!colour(&[("CLICOLOR_FORCE", "0")], false));
        assert!(!colour(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(!colour(&[("TERM", "dumb")], true));
    }

    #[test]
    fn the_mode_follows_flag_then_test_mode() {
        let with = |value: &str| settings(&Global::default(), &[("TEST_MODE", value)], (false, false));
        assert_eq!(with("live").mode(true), Ok(Mode::Mock));
        assert_eq!(with("mock").mode(false), Ok(Mode::Mock));
        assert_eq!(with("mixed").mode(false), Ok(Mode::Mixed));
        assert_eq!(with("").mode(false), Ok(Mode::Live));
        let refused = with("mokc").mode(false).expect_err("not a mode");
        assert!(refused.to_string().contains("mokc"), "{refused}");
    }

    #[test]
    fn a_provider_takes_any_of_its_variables_and_ollama_needs_none() {
        let google = settings(&Global::default(), &[("GOOGLE_API_KEY", "k")], (false, false));
        assert!(google.has_credential("gemini"));
        assert!(!google.has_credential("openai"));
        assert!(google.has_credential("ollama"));
        assert_eq!(google.select(&["GOOGLE_API_KEY".to_owned(), "OTHER".to_owned()]).len(), 1);
    }

    #[test]
    fn logging_is_off_until_somebody_asks_for_it() {
        let level = |flags: &Global, given: &[(&str, &str)]| {
            settings(flags, given, (false, false)).log_level().map(str::to_owned)
        };
        let flag = Global { log: Some("trace".to_owned()), ..Global::default() };
        let twice = Global { verbose: 2, ..Global::default() };
        assert_eq!(level(&Global { verbose: 1, ..Global::default() }, &[]), None);
        assert_eq!(level(&flag, &[("PIPELINE_LOG_LEVEL", "warn")]).as_deref(), Some("trace"));
        assert_eq!(level(&twice, &[]).as_deref(), Some("debug"));
        assert_eq!(level(&Global::default(), &[("PIPELINE_LOG_LEVEL", "warn")]).as_deref(), Some("warn"));
        assert_eq!(level(&Global::default(), &[("PIPELINE_DEBUG", "true")]).as_deref(), Some("debug"));
    }

    #[test]
    fn how_many_runs_stay_is_a_number_or_all() {
        let with = |given: &[(&str, &str)]| settings(&Global::default(), given, (false, false)).retention();
        assert_eq!(with(&[]), Ok(Some(Retention { keep: 50, days: 30 })));
        assert_eq!(with(&[("PIPELINE_KEEP_RUNS", "2")]), Ok(Some(Retention { keep: 2, days: 30 })));
        assert_eq!(with(&[("PIPELINE_KEEP_DAYS", "all")]), Ok(None));
        assert!(with(&[("PIPELINE_KEEP_RUNS", "few")]).is_err());
    }

    #[test]
    fn values_of_variables_that_sound_secret_are_secrets() {
        let variables = [
            ("ANTHROPIC_API_KEY", "a"),
            ("GITHUB_TOKEN", "b"),
            ("db_password", "c"),
            ("MONKEY", "d"),
            ("PWD", "e"),
        ];
        let mut secrets = settings(&Global::default(), &variables, (false, false)).secrets().join("");
        secrets = secrets.chars().filter(|c| "abcde".contains(*c)).collect();
        assert_eq!(secrets, "abc");
    }
}
