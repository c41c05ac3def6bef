//! Configuration files: `pipeline.toml` of a project and `config.toml` of a person.
//!
//! Owns [`Config`], where the files are looked for, and how one is put over the other. The project's file is the first
//! `pipeline.toml` on the way up from the working directory; the person's is `pipeline/config.toml` in `XDG_CONFIG_HOME`. A
//! pipeline file, the environment and flags win over both. Must not know what uses a setting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_core::provider::{ModelPrice, ProviderEntry};
use serde::Deserialize;

use crate::exit::Failure;
use crate::sources::reason;

/// The project's file.
const PROJECT: &str = "pipeline.toml";

/// What the files say.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Directories, as the keys of a pipeline file; relative ones mean the folder of the configuration file.
    pub workspace_dir: Option<PathBuf>,
    /// Where output files go.
    pub output_dir: Option<PathBuf>,
    /// The state directory.
    pub checkpoint_dir: Option<PathBuf>,
    /// The most that a run may cost which has no limit of its own, in US dollars.
    pub max_cost_usd: Option<f64>,
    /// Whether programs start in a sandbox, whatever a pipeline file says; one file that says so is enough.
    pub sandbox: bool,
    /// Backends, as under `providers` of a pipeline file.
    pub providers: BTreeMap<String, ProviderEntry>,
    /// Prices over those that come with the program.
    pub prices: Prices,
    /// The files that were read, the one that wins first.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
}

/// Prices of one's own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// The day on which they were right (`2026-11-25`).
    pub as_of: Option<String>,
    /// By model.
    pub models: BTreeMap<String, ModelPrice>,
}

impl Config {
    /// Reads the files for a working directory. `variable` is the environment.
    ///
    /// # Errors
    /// A usage [`Failure`] for a file that is there and cannot be read.
    pub fn load(working: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let project = working.ancestors().map(|dir| dir.join(PROJECT)).find(|path| path.is_file());
        let home = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = home.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
        let person = home.map(|dir| dir.join("pipeline/config.toml")).filter(|path| path.is_file());
        let mut config = Self::default();
        for path in [project, person].into_iter().flatten() {
            config.under(Self::read(&path)?);
            config.files.push(path);
        }
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {name}: {}", reason(&error))))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Failure::usage(format!("{name}:{line}: {}", error.message()))
                .help("`pipeline doctor` tells which configuration files are read")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for dir in [&mut config.workspace_dir, &mut config.output_dir, &mut config.checkpoint_dir] {
            *dir = dir.take().map(|dir| folder.join(dir));
        }
        for (name, entry) in &mut config.providers {
            entry.name.clone_from(name);
        }
        config.check().map_err(|message| Failure::usage(format!("{}: {message}", path.display())))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.max_cost_usd.is_some_and(|most| !(most.is_finite() && most >= 0.0)) {
            return Err("`max_cost_usd` is a number of dollars, not negative".to_owned());
        }
        let own = self.prices.models.iter().chain(self.providers.values().flat_map(|entry| &entry.prices));
        for (model, price) in own {
            let figures = [Some(price.input), Some(price.output), price.cache_read, price.cache_write];
            if figures.into_iter().flatten().any(|figure| !(figure.is_finite() && figure >= 0.0)) {
                return Err(format!(
                    "the price of `{model}` is in dollars for a million tokens, not negative"
                ));
            }
        }
        let date = self.prices.as_of.as_deref().unwrap_or("2026-01-01");
        let is_day = date.len() == 10
            && date
                .bytes()
                .enumerate()
                .all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
        if !is_day {
            return Err(format!("`prices.as_of` is `{date}`; it is a day such as 2026-11-25"));
        }
        if self.prices.as_of.is_none() && !self.prices.models.is_empty() {
            return Err("`prices` needs `as_of`: the day on which they were right".to_owned());
        }
        Ok(())
    }

    /// Puts `other` under this one: what is said here wins.
    fn under(&mut self, other: Self) {
        self.workspace_dir = self.workspace_dir.take().or(other.workspace_dir);
        self.output_dir = self.output_dir.take().or(other.output_dir);
        self.checkpoint_dir = self.checkpoint_dir.take().or(other.checkpoint_dir);
        self.max_cost_usd = self.max_cost_usd.or(other.max_cost_usd);
        self.sandbox |= other.sandbox;
        self.prices.as_of = self.prices.as_of.take().max(other.prices.as_of);
        for (name, entry) in other.providers {
            self.providers.entry(name).or_insert(entry);
        }
        for (model, price) in other.prices.models {
            self.prices.models.entry(model).or_insert(price);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn load(project: Option<&str>, person: Option<&str>) -> Result<Config, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(dir.path().join("home/pipeline")).unwrap();
        if let Some(text) = project {
            std::fs::write(dir.path().join("a/pipeline.toml"), text).unwrap();
        }
        if let Some(text) = person {
            std::fs::write(dir.path().join("home/pipeline/config.toml"), text).unwrap();
        }
        let home = dir.path().join("home").display().to_string();
        Config::load(&deep, |name| (name == "XDG_CONFIG_HOME").then(|| home.clone()))
    }

    #[test]
    fn a_projects_file_wins_over_a_persons_and_both_count() {
        let project = "max_cost_usd = 2\noutput_dir = 'out'\n[providers.local]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:1/v1'\n[prices]\nas_of = '2026-11-01'\nmodels.a = {input = 1, output = 2.5}";
        let person = "max_cost_usd = 9\n[providers.local]\nkind = 'gemini'\n[providers.mine]\nkind = 'ollama'\n[prices]\nas_of = '2026-10-01'\nmodels.a = {input = 9, output = 9}\nmodels.b = {input = 3, output = 4}";
        let config = load(Some(project), Some(person)).unwrap();
        assert_eq!((config.max_cost_usd, config.files.len()), (Some(2.0), 2));
        assert!(config.output_dir.as_ref().unwrap().ends_with("a/out"), "the file's folder");
        let kinds: Vec<&str> = config.providers.values().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["openai", "ollama"]);
        assert_eq!(config.providers["mine"].name, "mine");
        let inputs: Vec<f64> = config.prices.models.values().map(|price| price.input).collect();
        assert_eq!(
            (inputs.as_slice(), config.prices.as_of.as_deref()),
            ([1.0, 3.0].as_slice(), Some("2026-11-01"))
        );
        assert_eq!(load(None, None).unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_place() {
        let cases = [
            ("\nmax_cots_usd = 1", ":2: unknown field `max_cots_usd`"),
            ("max_cost_usd = -1", "not negative"),
            ("[prices]\nmodels.a = {input = 1, output = 2}", "as_of"),
            ("[prices]\nas_of = 'today'", "a day such as"),
            ("[prices]\nas_of = '2026-11-01'\nmodels.a = {input = -1, output = 2}", "`a`"),
            ("[providers.x]\nkey = 'sk-1'", "unknown field `key`"),
        ];
        for (text, told) in cases {
            let failure = load(Some(text), None).expect_err(text);
            assert!(
                failure.exit.code() == 2 && failure.messages.concat().contains(told),
                "{:?}",
                failure.messages
            );
        }
    }
}
