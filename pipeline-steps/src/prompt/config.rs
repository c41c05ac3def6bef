//! What a `prompt` step is told, as the compiler checks it and the step decodes it.
//!
//! Owns the configuration structs; their doc comments are the reference. Must not know what is done with them.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Map;

use pipeline_core::error::StepError;
use pipeline_core::provider::FunctionDeclaration;
use pipeline_core::value::Value;

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
    #[schemars(extend("x-kind" = "raw"))]
    pub options: Map<String, Value>,
    /// Id of a session of the provider to go on with.
    #[serde(default)]
    pub session: Option<Text>,
}

fn two() -> u64 {
    2
}

impl Config {
    /// Decodes a rendered configuration.
    ///
    /// # Errors
    /// `Invalid`, naming what does not fit: a template may have made something that the compiler could not foresee.
    pub fn decode(with: Value) -> Result<Self, StepError> {
        let config: Self = serde_json::from_value(with).map_err(|error| {
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

/// A text, or parts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PromptText {
    /// One text.
    Text(String),
    /// Parts, joined by newlines.
    Parts(Vec<Part>),
    /// What a template that is the whole prompt rendered to.
    #[schemars(skip)]
    Other(Value),
}

/// One part of a prompt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Part {
    /// A text.
    Static {
        /// The text.
        content: Text,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// The text of files.
    File {
        /// A file, a directory (all files in it and below) or a glob; looked for beside the pipeline file, then in
        /// the working directory. Hidden files count only when they are named.
        path: Text,
        /// Values for `{NAME}` and `{{NAME}}` in these files.
        #[serde(default)]
        variables: Map<String, Value>,
        /// Makes the text a variable `{NAME}` and `{{NAME}}` of the other parts, instead of a part.
        #[serde(default)]
        inject_as: Option<String>,
        /// How bytes become text. Default `utf-8`.
        #[serde(default)]
        encoding: Encoding,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// A value of the run, such as an earlier answer.
    Value {
        /// An expression. Text stays as it is, anything else becomes JSON.
        #[schemars(extend("x-kind" = "expression"))]
        value: Value,
        /// Most characters of it.
        #[serde(default)]
        max_length: Option<u64>,
        /// Makes the text a variable `{NAME}` and `{{NAME}}` of the other parts, instead of a part.
        #[serde(default)]
        inject_as: Option<String>,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
}

/// How bytes become text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Encoding {
    /// UTF-8; a byte order mark is dropped.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8", alias = "UTF-8")]
    Utf8,
    /// ISO 8859-1: every byte is a character.
    #[serde(rename = "latin-1", alias = "latin1", alias = "iso-8859-1")]
    Latin1,
}

/// By hand, because a derived schema does not know the other spellings.
impl JsonSchema for Encoding {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Encoding".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "enum": ["utf-8", "utf8", "UTF-8", "latin-1", "latin1", "iso-8859-1"],
        })
    }
}

/// A condition's result; true when there was none.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct When(pub bool);

impl Default for When {
    fn default() -> Self {
        Self(true)
    }
}

/// A text that a template may have made from anything: what is not text becomes JSON.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(text_of(&value)))
    }
}

/// A value as it stands in a prompt: text as it is, nothing for null, anything else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
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
