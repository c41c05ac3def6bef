//! For each step type a table of cases, `tests/cases/TYPE.yaml`: what it gives, what each of its options changes, how it fails.
//!
//! Owns the running of a table and what may stand in one. Whether the tables are complete is `cases_complete.rs`.
//!
//! A case is a step of the real program. For each of the `options` that it names it is run once more without that option, or
//! with `instead` where the option cannot be left out, and then what the case expects must not come true: an option that
//! does nothing cannot have a case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::server::Server;
use super::support::{Ended, Scratch, finish};

/// The cases of one step type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What every case has, unless it says otherwise.
    #[serde(default)]
    all: Around,
    pub cases: Vec<Case>,
}

/// What is around the step.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Around {
    /// Keys of the workflow.
    workflow: Map<String, Value>,
    /// Files in the directory in which the program is started.
    files: BTreeMap<String, String>,
    before: Vec<Value>,
}

/// One step and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    it: String,
    /// The options whose effect it shows, as paths in the step: `operations[0].field`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Keys of the step for the second run, in the place of leaving the option out; null takes a key away.
    #[serde(default)]
    instead: Map<String, Value>,
    /// The step; its name is `it`, its type that of the table.
    #[serde(default)]
    pub step: Map<String, Value>,
    #[serde(default)]
    workflow: Map<String, Value>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    before: Vec<Value>,
    #[serde(default)]
    after: Vec<Value>,
    /// A step that has the text IT where the step belongs.
    around: Option<Value>,
    /// Steps of a run of the same workflow before this one.
    #[serde(default)]
    earlier: Vec<Value>,
    /// What is done after the run; what is expected is then expected of that.
    then: Option<Then>,
    /// What the mock answers.
    #[serde(default)]
    rules: Vec<Value>,
    /// Further arguments of `pipeline run`.
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(flatten)]
    pub expected: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    /// The run is resumed with these arguments.
    Resume(Vec<String>),
    /// A run of the same workflow with these steps.
    Steps(Vec<Value>),
}

/// What must come true. Whatever is left out does not matter, but for the status.
#[derive(Debug, Deserialize)]
pub struct Expected {
    /// The step that it is about, when it is not `it`.
    of: Option<String>,
    /// `ok` unless it is said, or `failed` where there is an `error`; `none` where the step has not ended.
    status: Option<String>,
    /// Exit code; 0 or 1 by the status unless it is said.
    exit: Option<i32>,
    pub value: Option<Value>,
    /// Parts of the value: `items/0/status`.
    pub fields: Option<Map<String, Value>>,
    /// The message of the error, and its kind.
    pub error: Option<String>,
    kind: Option<String>,
    /// What an expression gives at the end.
    shows: Option<Shown>,
    /// What a file has at the end; null where it must not be.
    #[serde(default)]
    left: BTreeMap<String, Option<String>>,
    /// What stands somewhere in a file at the end.
    #[serde(default)]
    holds: BTreeMap<String, String>,
    /// Parts of the last request to the model service: `temperature`. The case is then run against a server.
    pub asked: Option<Map<String, Value>>,
    /// A line of what is told on standard error.
    told: Option<String>,
    /// The code and the message of a finding with which the program refuses the file.
    pub refused: Option<Refused>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    expression: String,
    gives: Value,
}

#[derive(Debug, Deserialize)]
pub struct Refused {
    code: String,
    message: String,
}

/// What came of a run.
struct Outcome {
    ended: Ended,
    scratch: Scratch,
    asked: Value,
}

/// The folder of the tables.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

pub fn read(kind: &str) -> Table {
    let path = folder().join(format!("{kind}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a table and panics with everything that is not as it says.
pub fn hold(kind: &str) {
    let table = read(kind);
    let mut problems = Vec::new();
    for case in &table.cases {
        let step = step(kind, case);
        let unmet = unmet(&case.expected, &run(&table.all, case, step.clone()));
        problems.extend(unmet.iter().map(|problem| format!("{}: {problem}", case.it)));
        for option in &case.options {
            let outcome = run(&table.all, case, without(step.clone(), option, &case.instead));
            if outcome.ended.code == Some(2) {
                let why = &outcome.ended.stderr;
                problems.push(format!("{}: without `{option}` the file is refused: {why}", case.it));
            } else if self::unmet(&case.expected, &outcome).is_empty() {
                problems.push(format!("{}: it is the same without `{option}`", case.it));
            }
        }
    }
    assert!(problems.is_empty(), "{} of {kind}.yaml:\n{}", problems.len(), problems.join("\n"));
}

fn step(kind: &str, case: &Case) -> Map<String, Value> {
    let mut step = Map::new();
    step.insert("name".to_owned(), "it".into());
    step.insert("type".to_owned(), kind.into());
    step.extend(case.step.clone());
    step
}

/// The step without the option.
fn without(mut step: Map<String, Value>, option: &str, instead: &Map<String, Value>) -> Map<String, Value> {
    if instead.is_empty() {
        let path = option.replace('[', "/").replace(['.', ']'], "/").replace("//", "/");
        let (parent, last) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", &path));
        let mut all = Value::Object(step);
        let pointer = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        let at = all.pointer_mut(&pointer).unwrap_or_else(|| panic!("nothing is at `{parent}` of {option}"));
        let gone = at.as_object_mut().and_then(|fields| fields.shift_remove(last));
        assert!(gone.is_some(), "the case has no `{option}`");
        return all.as_object().cloned().expect("a step");
    }
    for (key, value) in instead {
        match value {
            Value::Null => step.shift_remove(key),
            other => step.insert(key.clone(), other.clone()),
        };
    }
    step
}

/// The file with the step among its neighbours.
fn document(all: &Around, case: &Case, step: Map<String, Value>) -> Value {
    let mut steps: Vec<Value> = all.before.iter().chain(&case.before).cloned().collect();
    let step = Value::Object(step);
    steps.push(match &case.around {
        Some(around) => placed(around, &step),
        None => step,
    });
    steps.extend(case.after.iter().cloned());
    workflow(all, case, steps)
}

fn workflow(all: &Around, case: &Case, steps: Vec<Value>) -> Value {
    let mut workflow = Map::new();
    workflow.insert("name".to_owned(), "cases".into());
    workflow.extend(all.workflow.clone());
    workflow.extend(case.workflow.clone());
    workflow.insert("steps".to_owned(), steps.into());
    if let Some(shown) = &case.expected.shows {
        workflow.insert("outputs".to_owned(), json!({"seen": shown.expression}));
    }
    json!({ "workflow": workflow })
}

/// The step in the place of the text IT.
fn placed(around: &Value, step: &Value) -> Value {
    match around {
        Value::String(text) if text == "IT" => step.clone(),
        Value::Array(items) => items.iter().map(|item| placed(item, step)).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), placed(v, step))).collect(),
        other => other.clone(),
    }
}

fn run(all: &Around, case: &Case, step: Map<String, Value>) -> Outcome {
    let scratch = Scratch::new();
    for (name, text) in all.files.iter().chain(&case.files) {
        let path = scratch.write(name, text);
        if text.starts_with("#!") {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("a program");
        }
    }
    let rules = json!({ "rules": case.rules }).to_string();
    scratch.write("rules.json", &rules);
    let server = case.expected.asked.as_ref().map(|_| Server::start(&rules, &[]));
    let live = |text: String| match &server {
        Some(server) => text.replace("http://SERVER", &server.address),
        None => text,
    };
    let one = |name: &str, document: Value| {
        scratch.write(name, &live(document.to_string()));
        let mut arguments = vec!["run", name, "--json", "--yes", "--no-interactive", "--run-id", &name[..5]];
        if server.is_none() {
            arguments.extend(["--mock-rules", "rules.json"]);
        }
        arguments.extend(case.arguments.iter().map(String::as_str));
        program(&scratch, &arguments)
    };
    if !case.earlier.is_empty() {
        let ended = one("early.json", workflow(all, case, case.earlier.clone()));
        assert_eq!(ended.code, Some(0), "{}: the earlier run: {}", case.it, ended.stderr);
    }
    let mut ended = one("cases.json", document(all, case, step));
    match &case.then {
        Some(Then::Resume(more)) => {
            let more = more.iter().map(String::as_str);
            ended =
                program(&scratch, &["resume", "cases", "--json"].into_iter().chain(more).collect::<Vec<_>>());
        }
        Some(Then::Steps(steps)) => ended = one("later.json", workflow(all, case, steps.clone())),
        None => {}
    }
    let asked = server.and_then(|server| Some(server.requests().pop()?["body"].clone()));
    Outcome { ended, scratch, asked: asked.unwrap_or_default() }
}

fn program(scratch: &Scratch, arguments: &[&str]) -> Ended {
    let mut command = scratch.command(arguments);
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", scratch.path())
        .env("SERVICE_KEY", "test")
        .env("ANTHROPIC_API_KEY", "test");
    finish(command.spawn().expect("it starts"))
}

/// Everything in which the outcome is not what was expected.
fn unmet(expected: &Expected, outcome: &Outcome) -> Vec<String> {
    let ended = &outcome.ended;
    let mut problems = Vec::new();
    if let Some(refused) = &expected.refused {
        let line = format!("error[{}]: {}", refused.code, refused.message);
        if ended.code != Some(2) || !ended.stderr.lines().any(|l| l.ends_with(&line)) {
            problems.push(format!("expected `{line}`, got {:?}: {}", ended.code, ended.stderr));
        }
        return problems;
    }
    let Ok(report) = serde_json::from_str::<Value>(&ended.stdout) else {
        return vec![format!("it gave {:?}: {}", ended.code, ended.stderr)];
    };
    let mut differ = |what: &str, is: &Value, should: &Value| {
        if is != should {
            problems.push(format!("{what}: expected {should}, got {is}"));
        }
    };
    let step = &report["steps"][expected.of.as_deref().unwrap_or("it")];
    let status = match (&expected.status, &expected.error) {
        (Some(status), _) => status,
        (None, Some(_)) => "failed",
        (None, None) => "ok",
    };
    if step["status"].as_str().unwrap_or("none") != status {
        let help = format!("{} {}", step["error"], ended.stderr);
        differ("status", &format!("{} ({help})", step["status"]).into(), &status.into());
    }
    let by_status = i32::from(!["ok", "degraded", "skipped", "none"].contains(&status));
    differ("exit code", &json!(ended.code), &expected.exit.unwrap_or(by_status).into());
    if let Some(value) = &expected.value {
        differ("value", &step["value"], value);
    }
    for (path, should) in expected.fields.iter().flatten() {
        let is = step["value"].pointer(&format!("/{path}")).unwrap_or(&Value::Null);
        differ(&format!("`{path}`"), is, should);
    }
    for (name, should) in [("message", &expected.error), ("kind", &expected.kind)] {
        if let Some(should) = should {
            // The scratch folder has another name each time.
            let is = step["error"][name].as_str().unwrap_or("none");
            let is = is.replace(&*outcome.scratch.path().to_string_lossy(), "DIR");
            differ(name, &is.into(), &should.as_str().into());
        }
    }
    if let Some(shown) = &expected.shows {
        differ(&shown.expression, &report["outputs"]["seen"], &shown.gives);
    }
    for (name, should) in &expected.left {
        let is = std::fs::read_to_string(outcome.scratch.path().join(name)).ok();
        differ(name, &json!(is), &json!(should));
    }
    for (name, part) in &expected.holds {
        let is = std::fs::read_to_string(outcome.scratch.path().join(name)).unwrap_or_default();
        differ(&format!("`{part}` in {name}"), &is.contains(part).into(), &true.into());
    }
    for (path, should) in expected.asked.iter().flatten() {
        let is = outcome.asked.pointer(&format!("/{path}")).unwrap_or(&Value::Null);
        differ(&format!("the request's `{path}`"), is, should);
    }
    if let Some(line) = &expected.told
        && !ended.stderr.lines().any(|l| l.trim_start() == line)
    {
        problems.push(format!("nobody told `{line}`: {}", ended.stderr));
    }
    problems
}
