//! A checked pipeline: every name resolved, every template parsed, every schema checked.
//!
//! Owns [`Plan`], plain data that cannot hold an unresolved name, and [`compile()`], the only way to get one.
//! Must not know how it is run. Next: `plan/compile.rs` makes it; `schedule.rs` interprets it.

mod origin;
pub mod compile;

pub use compile::{CheckContext, CompileOptions, compile, compile_with_sources};
pub use origin::{Origin, Source};

use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Span;
use crate::error::ErrorKind;
use crate::expr::{Dynamic, Expr, Template};
use crate::provider::ProviderEntry;
use crate::resources::ResourceLimits;
use crate::source::SourceMap;
use crate::store::StoredSources;
use crate::value::{Data, Hash, Value};

/// Index of a [`Pipeline`] in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineId(pub(crate) u32);

/// Index of a [`Block`] in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub(crate) u32);

/// Index of a [`StepPlan`] in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) u32);

/// A compiled workflow with its children. Immutable, shared by reference count.
#[derive(Debug)]
pub struct Plan {
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) steps: Vec<StepPlan>,
    pub(crate) sources: SourceMap,
    pub(crate) providers: Vec<ProviderEntry>,
    pub(crate) links: compile::Links,
    pub(crate) fingerprint: Hash,
}

impl Plan {
    /// The root pipeline.
    pub fn root(&self) -> &Pipeline {
        &self.pipelines[0]
    }

    /// A pipeline of this plan.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.pipelines.iter()
    }

    /// One of its pipelines.
    pub fn pipeline(&self, id: PipelineId) -> &Pipeline {
        &self.pipelines[id.0 as usize]
    }

    /// A block of this plan.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    /// A step of this plan.
    pub fn step(&self, id: StepId) -> &StepPlan {
        &self.steps[id.0 as usize]
    }

    /// The entries of `providers`, of the workflow and its children.
    pub fn providers(&self) -> &[ProviderEntry] {
        &self.providers
    }

    /// Where the effective values of a step came from: every value that the step has, whoever said it.
    pub fn origins(&self, id: StepId) -> &[Origin] {
        &self.step(id).origins
    }

    /// The texts it was compiled from.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// The texts, as a run stores them.
    pub fn stored_sources(&self) -> StoredSources {
        let files: Vec<_> = self.sources.files().map(|(_, f)| f).collect();
        StoredSources {
            root: files.first().map(|f| f.canonical.clone()).unwrap_or_default(),
            files: files
                .iter()
                .map(|f| (f.canonical.clone(), (f.display.clone(), f.text.to_string())))
                .collect(),
            links: self.links.clone(),
        }
    }

    /// Hash of everything that decides what a run does: the texts of all files and the compile options.
    pub fn fingerprint(&self) -> Hash {
        self.fingerprint
    }
}

/// A pipeline with its own scope: the workflow, or a child.
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: Arc<str>,
    /// Declared (or implied) inputs.
    pub inputs: Vec<InputPlan>,
    /// Initial state, in order; later entries may read earlier ones.
    pub variables: Vec<(String, Dynamic)>,
    /// Values visible to children.
    pub global_vars: Vec<(String, Dynamic)>,
    /// The steps.
    pub body: BlockId,
    /// What it returns; `None` = every top-level step's value.
    pub outputs: Option<Vec<(String, Dynamic)>>,
    /// Its own limits.
    pub budget: Budget,
    /// Names of the environment that expressions may read.
    pub env: Vec<String>,
    /// Directories and permissions as written; the composition root resolves them.
    pub settings: Settings,
}

/// What a file says about directories and permissions.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// `workspace_dir`.
    pub workspace_dir: Option<String>,
    /// `output_dir`.
    pub output_dir: Option<String>,
    /// `checkpoint_dir`.
    pub checkpoint_dir: Option<String>,
    /// `permissions.read`.
    pub read: Vec<String>,
    /// `permissions.write`.
    pub write: Vec<String>,
    /// `permissions.shell`, `permissions.network` and `permissions.tools`.
    #[serde(default)]
    pub permissions: crate::step::Permissions,
    /// `tools`, `mcp_servers` and `hooks`, as written: what they mean is the registry's.
    #[serde(default)]
    pub tools: serde_json::Map<String, Value>,
}

/// One input.
#[derive(Debug, Clone)]
pub struct InputPlan {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: InputKind,
    /// Whether a run without it is refused.
    pub required: bool,
    /// Value when none is given.
    pub default: Option<Value>,
    /// Allowed values; empty = any.
    pub choices: Vec<Value>,
    /// What it is for.
    pub description: Option<String>,
    /// True when no `inputs` key declares it and its use implies it.
    pub implied: bool,
    /// Where it is declared or first used.
    pub span: Span,
}

/// The type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Anything.
    Any,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
    /// Path of a file.
    File,
}

/// Steps that run in order, or as a graph.
#[derive(Debug)]
pub struct Block {
    /// The steps, as written.
    pub steps: Vec<StepId>,
    /// For each step the positions of those that it needs; `None` = a sequence.
    pub needs: Option<Vec<Vec<usize>>>,
    /// Most steps at once in a graph.
    pub max_parallel: usize,
}

/// One step.
#[derive(Debug)]
pub struct StepPlan {
    /// Its name.
    pub name: Arc<str>,
    /// The `type` that was written.
    pub written_type: Arc<str>,
    /// What it is for.
    pub description: Option<String>,
    /// Where it stands.
    pub span: Span,
    /// Runs only when this holds.
    pub condition: Option<Condition>,
    /// Deadline of one attempt of a leaf, or of the whole of a control form; `None` = none of its own (written out as
    /// `timeout: none`, or a control form without one: its leaves are bounded).
    pub timeout: Option<Duration>,
    /// When to try again.
    pub retry: Retry,
    /// A failure does not stop what comes after.
    pub continue_on_error: bool,
    /// What to do instead of failing.
    pub on_error: OnError,
    /// File below the output directory that gets its primary value.
    pub output_to_file: Option<Template>,
    /// What happens to an attempt that a crash cut off.
    pub effects: Effects,
    /// Other ways to do a leaf, taken in order when every try of the one before has failed; what they give is `degraded`.
    pub fallback: Vec<Leaf>,
    /// Where a leaf works.
    pub workspace: Workspace,
    /// An answer to the same question is taken from earlier runs.
    pub cache: Option<Cache>,
    /// Limits of this step and everything below it.
    pub budget: Budget,
    /// Where its values came from; see [`Plan::origins`].
    pub(crate) origins: Vec<Origin>,
    /// What it does.
    pub body: Body,
}

/// What a step does.
#[derive(Debug)]
pub enum Body {
    /// One effect or computation.
    Leaf(Leaf),
    /// Fixed branches, each with an id.
    Parallel(Parallel),
    /// A body for each item of a list.
    ForEach(ForEach),
    /// A body as long as a condition holds.
    While(While),
    /// One of several lists of steps.
    Choose(Choose),
    /// Another pipeline, in a scope of its own.
    Child(Child),
    /// A question to a person.
    Ask(Ask),
    /// Ends the nearest loop.
    Break,
    /// Ends this turn of the nearest loop.
    Continue,
}

/// A question to a person: the step `approval`. Its `timeout` is wall time.
#[derive(Debug)]
pub struct Ask {
    /// The question.
    pub message: Dynamic,
    /// The answers to choose from; a list.
    pub choices: Option<Dynamic>,
    /// JSON Schema of the answer.
    pub schema: Option<Value>,
    /// The answer when nobody gives one in time.
    pub default: Option<Dynamic>,
}

/// A leaf: a step type of the catalog with its configuration.
#[derive(Debug)]
pub struct Leaf {
    /// Step type in the catalog.
    pub kind: Arc<str>,
    /// Configuration, with its templates.
    pub with: Dynamic,
}

/// Fixed branches that run at once, bounded.
#[derive(Debug)]
pub struct Parallel {
    /// The branches: id and steps. A branch's value is that of its last step.
    pub branches: Vec<(Arc<str>, BlockId)>,
    /// Most branches at once.
    pub max_parallel: usize,
    /// What the first failure does.
    pub on_failure: OnFailure,
}

/// What the first failing branch does to the others.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Stops them.
    FailFast,
    /// Lets them end; the step fails when all are done.
    #[default]
    Collect,
}

/// A body for each item.
#[derive(Debug)]
pub struct ForEach {
    /// Name under which the item is read as `loop.NAME`.
    pub iterator: Option<Arc<str>>,
    /// The list.
    pub source: Dynamic,
    /// The steps of one turn.
    pub body: BlockId,
    /// Most turns at once; `None` = one after the other.
    pub parallel: Option<usize>,
    /// A failing turn fails the step (and in parallel stops the others); else it is recorded and the loop goes on.
    pub break_on_error: bool,
    /// Ends the loop after the turn in which it holds.
    pub break_when: Option<Condition>,
    /// Skips a turn before its body.
    pub continue_when: Option<Condition>,
    /// Most turns.
    pub max_iterations: Option<u64>,
    /// How variables written in parallel turns are merged, in item order.
    pub reduce: Vec<(String, Reducer)>,
    /// Shape of the value.
    pub shape: LoopShape,
}

/// Shape of a ForEach's value.
#[derive(Debug)]
pub enum LoopShape {
    /// That of a for_loop.
    Loop,
    /// That of a parallel step: `results` by id; the id is this expression of the item (`loop.item`), or `task_<n>`.
    Batch {
        /// The id.
        id: Option<Dynamic>,
    },
}

/// How values of one variable, written in parallel turns, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reducer {
    /// A list of all values, after the one there was.
    Append,
    /// The sum, with the one there was.
    Sum,
    /// Maps merged, later turns win.
    Merge,
    /// The value of the last turn that wrote it.
    Last,
    /// The greatest.
    Max,
    /// The least.
    Min,
}

/// A body as long as a condition holds.
#[derive(Debug)]
pub struct While {
    /// Another turn is made while this holds.
    pub test: Condition,
    /// The first turn is made without asking (`until`: its condition may read what the body made).
    pub test_after: bool,
    /// Most turns.
    pub max_iterations: u64,
    /// Reaching the maximum is a success.
    pub accept_max: bool,
    /// The steps of one turn.
    pub body: BlockId,
}

/// One of several lists of steps.
#[derive(Debug)]
pub struct Choose {
    /// What is compared.
    pub on: Expr,
    /// Cases in order: value, name for the path, steps.
    pub cases: Vec<(Value, BlockId)>,
    /// Steps when no case fits; `None` = nothing runs and the value is null.
    pub default: Option<BlockId>,
}

/// Another pipeline in a scope of its own.
#[derive(Debug)]
pub struct Child {
    /// Which; for recursion by library reference it may be one of its own ancestors.
    pub pipeline: PipelineId,
    /// Its inputs.
    pub inputs: Vec<(String, Dynamic)>,
    /// What is taken of its outputs: (path in the outputs, name); `None` = all.
    pub outputs: Option<Vec<(String, String)>>,
    /// The parent's `global_vars` and state are visible as `global_vars`.
    pub inherit_context: bool,
    /// Most nested children, the root being depth 0.
    pub max_depth: u32,
    /// Most leaf attempts of the run, seen from here.
    pub max_total_steps: u64,
}

/// A condition in any of its forms.
#[derive(Debug)]
pub enum Condition {
    /// A constant.
    Const(bool),
    /// An expression; its value's truth counts.
    Expr(Expr),
    /// All hold.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
}

/// What to do instead of failing.
#[derive(Debug)]
pub enum OnError {
    /// Fail.
    Fail,
    /// Take this value, with status `degraded`.
    Value(Dynamic),
    /// Run these steps; their last value is taken, with status `degraded`.
    Steps(BlockId),
}

/// When to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Tries in all, the first included; at least 1.
    pub max_attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// Delay before the second try.
    pub base_delay: Duration,
    /// No delay is longer.
    pub max_delay: Duration,
    /// Delays vary by up to a quarter, so that branches do not come back all at once.
    pub jitter: bool,
    /// Kinds that are worth another try.
    pub on: Vec<ErrorKind>,
}

/// How a retry's delay grows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the base.
    Fixed,
    /// Base times the number of the try.
    Linear,
    /// Base doubled with each try.
    #[default]
    Exponential,
}

/// What happens to an attempt that a crash cut off.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Effects {
    /// It runs again.
    #[default]
    Repeatable,
    /// It stops for a person.
    Once,
}

/// How long an answer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Wall time; `None` = for ever.
    pub max_age: Option<Duration>,
}

/// Where a step works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workspace {
    /// In the run's workspace.
    #[default]
    Shared,
    /// In a directory of its own below it: one for each parallel branch, or for the step where there is none.
    Own,
    /// In one of its own where it runs in a parallel branch, else in the run's: agents that may write.
    OwnInBranches,
}

/// Limits; `None` = no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Budget {
    /// US dollars.
    pub max_cost_usd: Option<f64>,
    /// Tokens of all kinds.
    pub max_tokens: Option<u64>,
    /// Leaf attempts.
    pub max_steps: Option<u64>,
    /// The run's elapsed time.
    pub max_duration: Option<Duration>,
    /// Leaf attempts at once.
    pub max_parallel: Option<usize>,
    /// What the process may hold while something runs below its place.
    #[serde(flatten)]
    pub resources: ResourceLimits,
}

impl Retry {
    /// What a `retry` map means that says nothing about how often: three tries.
    pub(crate) fn tried() -> Self {
        Self { max_attempts: 3, ..Self::default() }
    }
}

impl Budget {
    /// Whether it limits what is spent below its place: money, tokens, attempts, or what a process can run out of.
    pub fn limits_spending(&self) -> bool {
        self.max_cost_usd.is_some()
            || self.max_tokens.is_some()
            || self.max_steps.is_some()
            || !self.resources.is_empty()
    }
}

impl Default for Retry {
    /// One try.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            backoff: Backoff::Exponential,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            jitter: true,
            on: vec![
                ErrorKind::TimedOut,
                ErrorKind::RateLimited,
                ErrorKind::Overloaded,
                ErrorKind::Server,
                ErrorKind::Network,
                ErrorKind::Truncated,
            ],
        }
    }
}

/// A value that a run gave to an input, or the default of one.
pub type Inputs = std::collections::BTreeMap<String, Data>;

/// Checks given values against the declared inputs of the root pipeline: fills defaults, converts text where the
/// declared type asks for it (`"3"` for an integer), refuses unknown and unfit ones.
///
/// # Errors
/// One sentence for each input that is missing, unknown or unfit; all of them at once.
pub fn check_inputs(plan: &Plan, given: Inputs) -> Result<Inputs, Vec<String>> {
    let declared = &plan.root().inputs;
    let mut checked = Inputs::new();
    let mut wrong = Vec::new();
    for input in declared {
        match (given.get(&input.name), &input.default) {
            (Some(value), _) => match fit_input(input, value) {
                Ok(value) => {
                    checked.insert(input.name.clone(), value);
                }
                Err(message) => wrong.push(message),
            },
            (None, Some(default)) => {
                checked.insert(input.name.clone(), Data::new(default.clone()));
            }
            (None, None) if input.required => wrong.push(match input.name.strip_prefix("global_vars.") {
                Some(name) => {
                    format!("missing global `{name}`: this pipeline reads it from a parent that runs it")
                }
                None => format!("missing input `{}`", input.name),
            }),
            (None, None) => {}
        }
    }
    for name in given.keys().filter(|name| declared.iter().all(|d| d.name != **name)) {
        let near = crate::diagnostic::closest(name, declared.iter().map(|d| d.name.as_str()));
        let help = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        wrong.push(format!("unknown input `{name}`{help}"));
    }
    if wrong.is_empty() { Ok(checked) } else { Err(wrong) }
}

/// Checks one value against a declared input; text is converted where the declared type asks for it.
///
/// # Errors
/// A sentence that names the input and what was expected.
pub fn fit_input(declared: &InputPlan, given: &Data) -> Result<Data, String> {
    let json = given.json();
    let wrong = |expected: &str| Err(format!("input `{}` must be {expected}, and is {json}", declared.name));
    let text = json.as_str();
    let fit = match declared.kind {
        InputKind::Any => given.clone(),
        InputKind::String | InputKind::File => match json {
            Value::String(_) => given.clone(),
            Value::Number(_) | Value::Bool(_) => Value::String(json.to_string()).into(),
            _ => return wrong("text"),
        },
        InputKind::Integer => match json.as_i64().or_else(|| text?.trim().parse().ok()) {
            Some(number) => Value::from(number).into(),
            None => return wrong("a whole number"),
        },
        InputKind::Number if json.is_number() => given.clone(),
        InputKind::Number => match text.and_then(|t| t.trim().parse::<serde_json::Number>().ok()) {
            Some(number) => Value::Number(number).into(),
            None => return wrong("a number"),
        },
        InputKind::Boolean => match json.as_bool().or_else(|| text?.trim().parse().ok()) {
            Some(flag) => Value::Bool(flag).into(),
            None => return wrong("true or false"),
        },
        InputKind::Array if json.is_array() => given.clone(),
        InputKind::Array => return wrong("a list"),
        InputKind::Object if json.is_object() => given.clone(),
        InputKind::Object => return wrong("a map"),
    };
    if !declared.choices.is_empty() && !declared.choices.contains(fit.json()) {
        let choices: Vec<String> = declared.choices.iter().map(ToString::to_string).collect();
        return wrong(&format!("one of {}", choices.join(", ")));
    }
    Ok(fit)
}
