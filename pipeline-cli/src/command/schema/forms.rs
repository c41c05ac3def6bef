//! The keys of control forms, for editors and for the reference page.
//!
//! Owns the table alone: the compiler reads these keys one by one, and a test asks it whether it knows each of them. Must
//! not know how a schema or a page is put together.

use pipeline_core::value::Value;
use serde_json::{Map, json};

/// A key of a control form.
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What stands there.
    pub form: Form,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it is for, with its default.
    pub about: &'static str,
    /// A value as it may be written, as JSON.
    pub example: &'static str,
}

/// What stands at a key.
pub enum Form {
    /// A list of steps.
    Steps,
    /// Text, with templates.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An expression, or a value as it is.
    Expression,
    /// A condition: text, a boolean, a list (all), or a map of and, or, not.
    Condition,
    /// A boolean.
    Flag,
    /// A whole number from 1.
    Count,
    /// A length of time: `90s`, `5m`, a number of seconds.
    Duration,
    /// A map.
    Map,
    /// A list.
    List,
    /// A list, or an expression that comes to one.
    ListOrExpression,
}

impl Form {
    /// Its name in a table.
    pub fn name(&self) -> String {
        match self {
            Self::Steps => "list of steps".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Word(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
            Self::Expression => "expression".to_owned(),
            Self::Condition => "condition".to_owned(),
            Self::Flag => "boolean".to_owned(),
            Self::Count => "integer".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Map => "map".to_owned(),
            Self::List => "list".to_owned(),
            Self::ListOrExpression => "list, expression".to_owned(),
        }
    }

    fn schema(&self) -> Value {
        match self {
            Self::Steps => json!({"$ref": "#/$defs/steps"}),
            Self::Text => json!({"type": "string"}),
            Self::Word(words) => json!({"enum": words}),
            Self::Expression | Self::Condition => json!({}),
            Self::Flag => json!({"type": ["boolean", "string"]}),
            Self::Count => json!({"type": ["integer", "string"], "minimum": 1}),
            Self::Duration => json!({"type": ["string", "number"]}),
            Self::Map => json!({"type": "object"}),
            Self::List => json!({"type": "array"}),
            Self::ListOrExpression => json!({"type": ["array", "string"]}),
        }
    }
}

const fn key(name: &'static str, form: Form, about: &'static str, example: &'static str) -> Key {
    Key { name, form, is_required: false, about, example }
}

const fn required(name: &'static str, form: Form, about: &'static str, example: &'static str) -> Key {
    Key { name, form, is_required: true, about, example }
}

const MAX_PARALLEL: Key = key(
    "max_parallel",
    Form::Count,
    "Most of them in flight at once. Default 5, or `defaults.max_parallel`.",
    "3",
);
const ON_FAILURE: Key = key(
    "on_failure",
    Form::Word(&["fail_fast", "collect"]),
    "`fail_fast` stops the others at the first failure, `collect` lets them end; the step fails either way. Default `collect`.",
    "\"collect\"",
);
const TASKS: &str = "The tasks: texts, or maps with `id`, `prompt`, `file`, `condition` and keys of a prompt; or an \
                     expression that comes to such a list.";
const BATCH: [Key; 4] = [
    key("prompt", Form::Text, "What stands before the prompt of every task.", "\"Be short.\""),
    key(
        "timeout_per_task",
        Form::Duration,
        "Deadline of one task. A bare number above 1000 is milliseconds, with a note.",
        "\"60s\"",
    ),
    MAX_PARALLEL,
    ON_FAILURE,
];
const STEPS_OF_TURN: Key = required(
    "steps",
    Form::Steps,
    "The body: what one turn does.",
    r#"[{"name": "turn", "type": "test_echo", "value": 1}]"#,
);

fn parallel_keys() -> Vec<Key> {
    vec![
        key(
            "steps",
            Form::Steps,
            "Branches of one step each, all at once; none sees another.",
            r#"[{"name": "branch", "type": "test_echo", "value": 1}]"#,
        ),
        key(
            "branches",
            Form::Map,
            "In the place of `steps`: names, each with a list of steps.",
            r#"{"left": [{"name": "branch", "type": "test_echo", "value": 1}]}"#,
        ),
        MAX_PARALLEL,
        ON_FAILURE,
    ]
}

fn for_loop_keys() -> Vec<Key> {
    vec![
        required(
            "data_source",
            Form::ListOrExpression,
            "The items: a list, or an expression that comes to one.",
            "\"range(2)\"",
        ),
        key("iterator", Form::Text, "A name for the item: `loop.NAME`, beside `loop.item`.", "\"n\""),
        STEPS_OF_TURN,
        key(
            "parallel",
            Form::Flag,
            "Turns run at once. Default false. They mean the same either way.",
            "true",
        ),
        MAX_PARALLEL,
        key(
            "reduce",
            Form::Map,
            "How a variable that turns write at once is merged: `append`, `sum`, `merge`, `last`, `max` or `min`.",
            r#"{"total": "sum"}"#,
        ),
        key(
            "break_on_error",
            Form::Flag,
            "Whether the first turn that fails ends the loop, which fails. Default true.",
            "false",
        ),
        key(
            "break_condition",
            Form::Condition,
            "Ends the loop after the turn in which it holds.",
            "\"loop.index > 5\"",
        ),
        key(
            "continue_condition",
            Form::Condition,
            "Leaves a turn out, before its body, when it holds.",
            "\"loop.index == 1\"",
        ),
        key("max_iterations", Form::Count, "No more turns than that.", "10"),
    ]
}

fn while_loop_keys() -> Vec<Key> {
    vec![
        key(
            "condition",
            Form::Condition,
            "A turn is made as long as it holds; asked before each turn. One of `condition` and `until` is needed.",
            "\"loop.index < 1\"",
        ),
        key(
            "until",
            Form::Condition,
            "The loop ends when it holds; asked after each turn.",
            "\"loop.index >= 1\"",
        ),
        STEPS_OF_TURN,
        key("max_iterations", Form::Count, "Most turns. Default 100.", "10"),
        key(
            "on_max_iterations",
            Form::Word(&["fail", "accept"]),
            "What it is when the turns are used up and the condition still holds. Default `fail`.",
            "\"accept\"",
        ),
    ]
}

fn switch_keys() -> Vec<Key> {
    vec![
        required("expression", Form::Expression, "The value that the cases are compared with.", "\"'a'\""),
        required(
            "cases",
            Form::Map,
            "Values, each with the list of steps that then runs.",
            r#"{"a": [{"name": "case", "type": "test_echo", "value": 1}]}"#,
        ),
        key(
            "default",
            Form::Steps,
            "The steps when no case fits.",
            r#"[{"name": "other", "type": "test_echo", "value": 1}]"#,
        ),
    ]
}

fn pipeline_keys() -> Vec<Key> {
    vec![
        key(
            "pipeline_file",
            Form::Text,
            "The child's file, relative to this file. One of the three is needed.",
            "\"child.yaml\"",
        ),
        key(
            "pipeline",
            Form::Map,
            "The child, written in place.",
            r#"{"name": "c", "steps": [{"name": "s", "type": "test_echo", "value": 1}]}"#,
        ),
        key(
            "pipeline_ref",
            Form::Text,
            "The child's name in the library. Recursion goes through here.",
            "\"child\"",
        ),
        key("inputs", Form::Map, "Values of the child's inputs, by name.", "{}"),
        key(
            "outputs",
            Form::List,
            "Which outputs of the child its value has: names, or `{path, as}`. All when it is left out.",
            r#"["s"]"#,
        ),
        key(
            "config",
            Form::Map,
            "`inherit_context`, `inherit_providers`, `inherit_functions`, `workspace_dir`, `timeout_seconds`, \
                     `max_retries`, `continue_on_error`, `max_depth` (10), `max_total_steps` (1000).",
            r#"{"max_depth": 3}"#,
        ),
    ]
}

fn approval_keys() -> Vec<Key> {
    vec![
        required("message", Form::Text, "The question.", "\"Go on?\""),
        key(
            "choices",
            Form::List,
            "The answers to choose from. Not together with `schema`.",
            r#"["yes", "no"]"#,
        ),
        key("schema", Form::Map, "JSON Schema that the answer must fit.", r#"{"type": "string"}"#),
        key(
            "default",
            Form::Expression,
            "The answer when nobody gives one before the `timeout` of the step.",
            "\"no\"",
        ),
    ]
}

/// Every control form with its keys; keys that all steps have are not repeated.
pub fn forms() -> Vec<(&'static str, Vec<Key>)> {
    let batch = |tasks: &'static str| {
        let example = r#"[{"id": "one", "prompt": "x"}]"#;
        let mut keys = vec![required(tasks, Form::ListOrExpression, TASKS, example)];
        keys.extend(BATCH);
        keys
    };
    vec![
        ("parallel", parallel_keys()),
        ("parallel_claude", batch("parallel_tasks")),
        ("claude_batch", batch("tasks")),
        ("for_loop", for_loop_keys()),
        ("while_loop", while_loop_keys()),
        ("switch", switch_keys()),
        ("pipeline", pipeline_keys()),
        ("approval", approval_keys()),
        ("break", Vec::new()),
        ("continue", Vec::new()),
    ]
}

/// The keys as properties of a JSON Schema.
pub fn properties(keys: &[Key]) -> Map<String, Value> {
    let property = |key: &Key| {
        let mut schema = key.form.schema();
        schema["description"] = key.about.into();
        if let Ok(example) = serde_json::from_str::<Value>(key.example) {
            schema["examples"] = json!([example]);
        }
        (key.name.to_owned(), schema)
    };
    keys.iter().map(property).collect()
}
