//! What a `prompt` step is told, as the compiler checks it and the step decodes it.
//!
//! Owns the configuration structs; their doc comments are the reference. Must not know what is done with them.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Map;

use pipeline_core::error::StepError;
use pipeline_core::provider::FunctionDeclaration;
use pipeline_core::value::Value;

use crate::prompt::expect::Expect;
use crate::prompt::extraction::Extraction;
use crate::prompt::part::{PromptText, Text};

/// Asks a model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What is asked: a text, or a list of parts that are joined by newlines.
    pub prompt: PromptText,
    /// Who is asked: `claude`, `gemini`, `openai`, or a name from `providers`. Default `claude`.
    #[serde(default)]
    pub provider: Option<Text>,
    /// Model name. Default: the provider's.
    #[serde(default)]
    pub model: Option<Text>,
    /// Replaces the system prompt.
    #[serde(default)]
    pub system_prompt: Option<Text>,
    /// Is added to the system prompt.
    #[serde(default)]
    pub append_system_prompt: Option<Text>,
    /// Sampling temperature, from 0 to 2.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
    /// Nucleus sampling, from 0 to 1.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f64>,
    /// Top-k sampling, a number of tokens.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub top_k: Option<u64>,
    /// Most tokens of one answer.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_output_tokens: Option<u64>,
    /// Most turns: of an agent by itself, and of model calls that ask for tools (there 10 by default).
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_turns: Option<u64>,
    /// Functions that the model may call; its calls are handed back in `function_calls`. A list of `name`,
    /// `description` and `parameters`, or a map by name.
    #[serde(default)]
    #[schemars(extend("x-kind" = "raw"))]
    pub functions: Functions,
    /// Names of registered tools that the model may call; its calls are executed and it is told their results.
    #[serde(default)]
    pub tools: Vec<String>,
    /// JSON Schema that the answer must fit.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>", extend("x-kind" = "raw"))]
    pub output_schema: Option<Value>,
    /// What happens when the answer still does not fit after all repairs: `strict` fails, `loose` warns.
    #[serde(default)]
    pub validation_mode: ValidationMode,
    /// How often an answer that does not fit is sent back for repair. Default 2.
    #[serde(default = "two")]
    #[schemars(range(max = 20))]
    pub repair_attempts: u64,
    /// The answer must be a JSON object; for any other shape give `output_schema`.
    #[serde(default)]
    pub json: bool,
    /// Options of an agent, by their names in `claude_options`.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// The conversation that this prompt is a turn of.
    #[serde(default)]
    pub session: Option<SessionConfig>,
    /// What is done when the history of a session grows long.
    #[serde(default)]
    pub memory: Memory,
    /// Reads the answer: its parts are fields of `extraction` in the value. The text stays as it is.
    #[serde(default)]
    pub extraction: Option<Extraction>,
    /// What must be true after the answer; else the step fails.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// Asks for less: only the prompt's own words, briefly, without tools.
    #[serde(default)]
    pub simplify: bool,
    /// `save` keeps a good answer under its question; `load` gives the kept one instead of asking.
    #[serde(default)]
    pub keep_answer: Option<KeepAnswer>,
}

/// A conversation that outlives the step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionConfig {
    /// Its name. Steps with the same name take turns in it, one at a time.
    pub name: Text,
    /// Whether later runs find it. Default false: the name belongs to this run.
    #[serde(default)]
    pub persist: bool,
    /// Whether a later run goes on with the conversation of an earlier one, or begins anew under its name. Default true.
    #[serde(default = "yes")]
    pub continue_on_restart: bool,
    /// Most turns; the next one is an error.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_turns: Option<u64>,
}

/// What is done with a long history. A token is counted as four characters.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// Most tokens that are sent; more is an error before anything is paid for. Default: no limit, or 150,000 with
    /// `auto_compact`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_context_length: Option<u64>,
    /// Whether older turns of a session are left out when the history is over `compact_threshold`.
    #[serde(default)]
    pub auto_compact: bool,
    /// Tokens of history that are kept. Default 100,000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub compact_threshold: Option<u64>,
}

/// Whether an answer is kept for worse times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeepAnswer {
    /// A good answer is kept.
    Save,
    /// The kept answer is given, and nobody is asked.
    Load,
}

fn yes() -> bool {
    true
}

fn two() -> u64 {
    2
}

impl Config {
    /// Decodes a rendered configuration.
    ///
    /// # Errors
    /// `Invalid`, naming what does not fit: a template may have made something that the compiler could not foresee.
    pub fn decode(with: &Value) -> Result<Self, StepError> {
        let config = Self::deserialize(with).map_err(|error| {
            StepError::invalid(format!("the configuration of the prompt does not fit: {error}"))
                .help("see what its templates render to with `pipeline explain`")
        })?;
        if let Some(schema) = config.output_schema.as_ref().filter(|s| !s.is_object() && !s.is_boolean()) {
            return Err(StepError::invalid(format!(
                "`output_schema` must be a JSON Schema, a map; it is {schema}"
            )));
        }
        Ok(config)
    }
}

/// What is done with an answer that does not fit after all repairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ValidationMode {
    /// The step fails.
    #[default]
    Strict,
    /// The step goes on with the JSON as it is, and warns.
    Loose,
}

/// Declared functions, as a list or a map.
#[derive(Debug, Default, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Functions(#[schemars(with = "Value")] pub Vec<FunctionDeclaration>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Option<Value>,
}

impl Declared {
    fn named(self, key: Option<String>) -> Result<FunctionDeclaration, String> {
        let name = self.name.or(key).ok_or("a function needs `name`")?;
        let none = || serde_json::json!({ "type": "object", "properties": {} });
        let parameters = self.parameters.unwrap_or_else(none);
        Ok(FunctionDeclaration { name, description: self.description, parameters })
    }
}

impl<'de> Deserialize<'de> for Functions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            List(Vec<Declared>),
            Map(indexmap::IndexMap<String, Declared>),
        }
        let all: Result<Vec<_>, String> = match Given::deserialize(deserializer)? {
            Given::List(list) => list.into_iter().map(|f| f.named(None)).collect(),
            Given::Map(map) => map.into_iter().map(|(key, f)| f.named(Some(key))).collect(),
        };
        all.map(Self).map_err(serde::de::Error::custom)
    }
}
