//! The composition root: puts the program together and hands each command what it needs.
//!
//! Owns [`App`] and the list of files that a run wrote. Which implementations there are is `wiring.rs`'s choice.
//! Must not know what a command does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::engine::Engine;
use pipeline_core::error::StepError;
use pipeline_core::plan::{CompileOptions, Plan};
use pipeline_core::provider::ProviderEntry;
use pipeline_core::redact::Redactor;
use pipeline_core::source::{SourceLoader, SourceRef};
use pipeline_core::step::RunInfo;
use pipeline_core::store::{CheckpointStore, OutputWriter};
use serde_json::{Map, Value};

use crate::args::{Cli, Command};
use crate::command;
use crate::command::work::check_credentials;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::report::diagnostics::Checked;
use crate::settings::{Mode, Settings};
use crate::setup::RulesText;
use crate::sources::FileSources;
use crate::{logging, walk, wiring};

/// Most calls at once to live providers, over all runs of the process.
const LIVE_CALLS: usize = 16;

/// What every command has.
pub struct App {
    /// What the surroundings say.
    pub settings: Settings,
    /// Where to print.
    pub console: Console,
}

/// What a run is worked on with.
pub struct Workshop {
    /// The engine.
    pub engine: Engine,
    /// Files that steps of this process wrote.
    pub written: Arc<Written>,
}

/// The step types and providers of a mode.
pub struct Kinds {
    /// By name.
    pub catalog: Catalog,
    /// Providers that would be called live and have no credential.
    pub lacking: Vec<&'static str>,
    /// What backends of a configuration or a file lack, by name.
    messages: BTreeMap<String, String>,
    mode: Mode,
    rules: Arc<wiring::MockRules>,
    layers: wiring::Layers,
}

impl App {
    /// Reads a file of mock rules.
    ///
    /// # Errors
    /// A usage [`Failure`] with a sentence for each finding.
    pub fn rules(rules: &RulesText) -> Result<wiring::MockRules, Failure> {
        wiring::MockRules::parse(&rules.text, &rules.name).map_err(|findings| {
            let mut failure = Failure::usage("");
            failure.messages = findings.lines().map(str::to_owned).collect();
            failure.help("put the file of mock rules right")
        })
    }

    /// What is registered in `mode`, the mock scripted by `rules`.
    ///
    /// # Errors
    /// A usage [`Failure`] for rules that cannot be read, with a sentence for each finding.
    pub fn kinds(&self, mode: Mode, rules: Option<&RulesText>) -> Result<Kinds, Failure> {
        let rules = match rules {
            None => wiring::MockRules::default(),
            Some(rules) => Self::rules(rules)?,
        };
        let mut catalog = Catalog::default();
        let rules = Arc::new(rules);
        let layers = wiring::Layers::new(&self.settings.state_dir(None));
        let (providers, lacking) =
            wiring::providers(mode, &rules, &self.settings, &layers).map_err(Failure::environment)?;
        let broken = |error: pipeline_core::catalog::Duplicate| {
            Failure::environment(format!("this program is put together wrongly: {error}"))
                .help("this is a fault of `pipeline`: please report it")
        };
        for step in wiring::steps() {
            catalog.add_step(step).map_err(broken)?;
        }
        for kind in wiring::kinds() {
            catalog.add_kind(kind).map_err(broken)?;
        }
        for provider in providers {
            catalog.add_provider(provider).map_err(broken)?;
        }
        let mut kinds = Kinds { catalog, lacking, messages: BTreeMap::new(), mode, rules, layers };
        for entry in self.settings.config.providers.values() {
            let entry = known(entry, &kinds.catalog)?;
            kinds.put(&self.settings, &entry);
        }
        Ok(kinds)
    }

    /// What the plan's steps call: the entries of its `providers` are connected, and what is called has what it needs.
    ///
    /// # Errors
    /// An environment [`Failure`] that names every variable that is missing.
    pub fn connect(&self, mut kinds: Kinds, plan: &Plan) -> Result<Kinds, Failure> {
        let used = walk::providers(plan);
        for entry in plan.providers() {
            kinds.put(&self.settings, entry);
        }
        let missing = kinds.messages.iter().filter(|(name, _)| used.contains(*name));
        check_credentials(&used, &kinds.lacking, missing.map(|(_, message)| message.clone()).collect())?;
        Ok(kinds)
    }

    /// Finds the values of all secrets that the plan's providers, tools and servers are given, whatever their variables
    /// are called.
    fn redactor(&self, plan: &Plan, keys: &Map<String, Value>) -> Result<Redactor, Failure> {
        let entries = plan.providers().iter().chain(self.settings.config.providers.values());
        let mut names: Vec<String> = entries.flat_map(wiring::secrets_of).collect();
        let readable = plan.pipelines().flat_map(|pipeline| &pipeline.env);
        names.extend(readable.filter(|name| Settings::sounds_secret(name)).cloned());
        names.extend(wiring::secrets_of_tools(keys).map_err(Failure::usage)?);
        names.extend(
            Settings::credentials().iter().flat_map(|(_, names)| *names).map(|name| (*name).to_owned()),
        );
        let values = names.iter().filter_map(|name| self.settings.variable(name));
        Redactor::new(values).map_err(Failure::environment)
    }

    /// Pipeline files as seen from the working directory.
    pub fn sources(&self, state_dir: &Path) -> FileSources {
        FileSources::new(self.settings.working.clone(), self.settings.library(state_dir))
    }
}

impl Kinds {
    /// Puts the backend of an entry in the place of what has its name.
    fn put(&mut self, settings: &Settings, entry: &ProviderEntry) {
        self.lacking.retain(|name| *name != entry.name);
        self.messages.remove(&entry.name);
        match wiring::entry(self.mode, &self.rules, settings, &self.layers, entry) {
            Ok(provider) => self.catalog.set_provider(provider),
            Err(message) => {
                self.catalog.set_provider(wiring::unavailable(entry, message.clone()));
                self.messages.insert(entry.name.clone(), message);
            }
        }
    }
}

/// An entry of a configuration file with its kind, which the name of a built-in provider says by itself.
fn known(entry: &ProviderEntry, catalog: &Catalog) -> Result<ProviderEntry, Failure> {
    let by_name = || catalog.kinds().find(|kind| kind.built_in.contains(&entry.name.as_str()));
    let kind = match entry.kind.as_str() {
        "" => by_name(),
        name => catalog.kind(name),
    };
    let Some(kind) = kind else {
        let kinds: Vec<&str> = catalog.kinds().map(|kind| kind.name).collect();
        let message = format!("the provider `{}` of the configuration is of no known kind", entry.name);
        return Err(Failure::usage(message).help(format!("its `kind` is one of {}", kinds.join(", "))));
    };
    Ok(ProviderEntry { kind: kind.name.to_owned(), ..entry.clone() })
}

/// Compiles a file. What was found beside errors comes with the plan.
///
/// # Errors
/// The findings, at least one an error.
pub fn compile(
    loader: &dyn SourceLoader,
    file: &str,
    catalog: &Catalog,
    options: &CompileOptions,
) -> Result<(Plan, Checked), Checked> {
    let root = SourceRef::Path(file.to_owned());
    match pipeline_core::plan::compile_with_sources(loader, &root, catalog, options) {
        Ok((plan, findings)) => {
            let sources = plan.sources().clone();
            Ok((plan, Checked { path: file.to_owned(), findings, sources }))
        }
        Err((findings, sources)) => Err(Checked { path: file.to_owned(), findings, sources }),
    }
}

/// The store of a state directory.
pub fn store(state_dir: &Path) -> Arc<dyn CheckpointStore> {
    wiring::store(state_dir, None)
}

/// An engine that uses what `kinds` has, keeps its runs in `store`, and conversations and snapshots in `state_dir`.
pub fn workshop(app: &App, kinds: Kinds, store: Arc<dyn CheckpointStore>, state_dir: &Path) -> Workshop {
    let written = Arc::new(Written { inner: wiring::outputs(), files: Mutex::default() });
    let outputs: Arc<dyn OutputWriter> = Arc::<Written>::clone(&written);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut services = Services::new(kinds.catalog, wiring::tools(), outputs);
    services.calls = (!matches!(kinds.mode, Mode::Mock | Mode::Replay))
        .then(|| Arc::new(tokio::sync::Semaphore::new(LIVE_CALLS)));
    services.jq = wiring::jq();
    services.resources = Some(wiring::resources(vec![state_dir.to_owned(), app.settings.working.clone()]));
    services.child_env = Arc::new(app.settings.child_env());
    services.sessions = Some(wiring::sessions(state_dir, Arc::clone(&clock)));
    services.snapshots = Some(wiring::snapshots(state_dir, Arc::clone(&clock)));
    Workshop { engine: Engine { services: Arc::new(services), store, clock }, written }
}

impl Workshop {
    /// Registers what the pipelines of a plan declare under `tools`, `mcp_servers` and `hooks`.
    ///
    /// # Errors
    /// A usage [`Failure`] for what is declared wrongly.
    pub fn declare(&mut self, app: &App, plan: &Plan) -> Result<(), Failure> {
        let mut keys: Map<String, Value> = Map::new();
        for pipeline in plan.pipelines() {
            for (key, value) in &pipeline.settings.tools {
                match (keys.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                    // What a parent declares, its children cannot replace.
                    (Some(all), Some(more)) => {
                        for (name, entry) in more {
                            all.entry(name).or_insert_with(|| entry.clone());
                        }
                    }
                    _ => drop(keys.insert(key.clone(), value.clone())),
                }
            }
        }
        let services = Arc::make_mut(&mut self.engine.services);
        services.redactor = Arc::new(app.redactor(plan, &keys)?);
        if !keys.is_empty() {
            let tools = wiring::declared_tools(&keys, &app.settings).map_err(Failure::usage)?;
            services.tools = tools;
        }
        Ok(())
    }

    /// Ends what was started for steps: servers of tools.
    pub async fn close(&self) {
        self.engine.services.tools.close().await;
    }
}

/// Does what the command line asks.
pub async fn dispatch(cli: Cli) -> Exit {
    let mut settings = match Settings::of_process(&cli.global) {
        Ok(settings) => settings,
        // Without a working directory there are no settings, but there is somebody to tell.
        Err(failure) => return Console::new(&Settings::default()).fail(&failure),
    };
    let console = Console::new(&settings);
    match logging::start(&settings) {
        // Lines between redrawn lines are unreadable.
        Ok(to_stderr) => settings.live &= !to_stderr,
        Err(failure) => return console.fail(&failure),
    }
    for file in &settings.config.files {
        console.note(&format!("using {}", file.display()));
    }
    let app = App { settings, console };
    let done = match &cli.command {
        Command::Check(args) => command::check::check(&app, args),
        Command::Run(args) => Box::pin(command::run::run(&app, args)).await,
        Command::Plan(args) => command::plan::plan(&app, args).await,
        Command::Resume(args) => Box::pin(command::resume::resume(&app, args)).await,
        Command::Runs(args) => command::runs::runs(&app, args).await,
        Command::Report(args) => command::report::report(&app, args).await,
        Command::Tools(args) => Box::pin(command::tools::tools(&app, args)).await,
        Command::Sessions(args) => command::sessions::sessions(&app, args).await,
        Command::Graph(args) => command::graph::graph(&app, args),
        Command::Schema => command::schema::schema(&app),
        Command::Explain(args) => command::explain::explain(&app, args),
        Command::Test(args) => command::test::test(&app, args).await,
        Command::Verify(args) => command::verify::verify(&app, args).await,
        Command::Bench(args) => command::bench::bench(&app, args).await,
        Command::Init(args) => command::make::init(&app, args),
        Command::New(args) => command::make::new(&app, args),
        Command::Generate(args) => command::generate::generate(&app, args).await,
        Command::Migrate(args) => command::migrate::migrate(&app, args),
        Command::Completions(args) => command::make::completions(&app, args),
        Command::Man => command::make::man(&app),
        Command::Doctor => command::doctor::doctor(&app).await,
        #[cfg(feature = "mock-server")]
        Command::MockServer(args) => command::mock_server::mock_server(&app, args).await,
    };
    done.unwrap_or_else(|failure| app.console.fail(&failure))
}

/// Writes output files and remembers which.
pub struct Written {
    inner: Arc<dyn OutputWriter>,
    files: Mutex<BTreeSet<PathBuf>>,
}

impl Written {
    /// The files, by name.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.lock().iter().cloned().collect()
    }
}

#[async_trait]
impl OutputWriter for Written {
    async fn write(&self, run: &RunInfo, name: &str, text: &str) -> Result<PathBuf, StepError> {
        let path = self.inner.write(run, name, text).await?;
        self.files.lock().insert(path.clone());
        Ok(path)
    }
}
