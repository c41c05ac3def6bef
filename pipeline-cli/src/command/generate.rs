//! `pipeline generate "request"`: a pipeline file made by a model, or from templates with `--mock`.
//!
//! The request goes to a model with the rules of the language; what comes back is checked as any file is, and sent back
//! with the findings until nothing is wrong. Only then it is written, and never over a file that exists.

use std::time::Duration;

use pipeline_core::diagnostic::Severity;
use pipeline_core::plan::CompileOptions;
use pipeline_core::source::{LoadedSource, Referrer, SourceError, SourceLoader, SourceRef};
use serde_json::json;

use super::make::{TEMPLATES, create};
use crate::app::{self, App};
use crate::args::{Complexity, Generate, Profile};
use crate::exit::{Exit, Failure};
use crate::itself;
use crate::report::diagnostics;
use crate::settings::Mode;
use crate::sources::FileSources;

/// How often a file is sent back.
const REPAIRS: usize = 3;
/// How long a model may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A text that stands for a file which need not exist, on top of the files that do.
pub struct Draft<'a> {
    /// The file.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Everything else.
    pub under: &'a FileSources,
}

impl SourceLoader for Draft<'_> {
    fn load(&self, reference: &SourceRef, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError> {
        match (reference, from) {
            (SourceRef::Path(path), None) if *path == self.name => Ok(LoadedSource {
                display: path.clone(),
                canonical: self.under.absolute(path),
                text: self.text.clone(),
            }),
            _ => self.under.load(reference, from),
        }
    }

    fn data_file_exists(&self, path: &str, from: &str) -> Option<bool> {
        self.under.data_file_exists(path, from)
    }
}

/// Makes a file.
///
/// # Errors
/// [`Failure`] when no file without findings came of it, or it cannot be written.
pub async fn generate(app: &App, args: &Generate) -> Result<Exit, Failure> {
    let mock = app.settings.mode(args.mock)? == Mode::Mock;
    let kinds = app.kinds(Mode::Mock, None)?;
    let files = app.sources(&app.settings.state_dir(None));
    let file = args.output.clone().unwrap_or_else(|| format!("{}.yaml", slug(&args.request)).into());
    let name = file.display().to_string();
    if !args.dry_run && app.settings.absolute(&file).exists() {
        return Err(Failure::usage(format!("{name} exists already")).help("name another file with -o"));
    }
    let mut findings = String::new();
    let mut text = String::new();
    for round in 0..=REPAIRS {
        text = if mock { template(&args.request) } else { asked(app, args, &text, &findings).await? };
        let draft = Draft { name: name.clone(), text: text.clone(), under: &files };
        match app::compile(&draft, &name, &kinds.catalog, &CompileOptions::default()) {
            Ok(_) => {
                if args.dry_run {
                    app.console.out(&text)?;
                } else {
                    create(app, &file, &text)?;
                    let document = json!({"schema": "pipeline.written/1", "files": [name]});
                    app.console.out(&if app.settings.json {
                        format!("{document:#}\n")
                    } else {
                        format!("wrote {name}\n")
                    })?;
                    app.console
                        .note(&format!("next: `pipeline plan {name}`, then `pipeline run {name} --mock`"));
                }
                return Ok(Exit::Success);
            }
            Err(checked) => {
                findings = diagnostics::text_from(&checked, Severity::Error);
                app.console.note(&format!("draft {}: {} errors", round + 1, checked.count(Severity::Error)));
            }
        }
    }
    app.console.err(findings.trim_end());
    Err(Failure::new(
        Exit::Failed,
        format!("no file without errors came of {} drafts; nothing was written", REPAIRS + 1),
    )
    .help("say the request in other words, or begin with `pipeline new`"))
}

/// One draft of a model: a run of a small pipeline of this program, so that it has its retries, limits and credentials.
async fn asked(app: &App, args: &Generate, before: &str, findings: &str) -> Result<String, Failure> {
    let provider = args.provider.as_deref().unwrap_or("claude");
    let model = args.model.as_ref().map_or_else(String::new, |model| format!("      model: {model:?}\n"));
    let file = format!(
        "workflow:\n  name: generate\n  inputs: {{ask: {{type: string}}}}\n  steps:\n    - name: draft\n      type: prompt\n      provider: {provider:?}\n{model}      prompt: '{{{{ inputs.ask }}}}'\n      retry: {{max_attempts: 3}}\n  outputs: {{text: steps.draft.text}}\n"
    );
    let unusable =
        |error: std::io::Error| Failure::environment(format!("a temporary folder is needed: {error}"));
    let scratch = tempfile::tempdir().map_err(unusable)?;
    std::fs::write(scratch.path().join("generate.yaml"), file).map_err(unusable)?;
    std::fs::write(scratch.path().join("ask.txt"), ask(args, before, findings)).map_err(unusable)?;
    let words = itself::words(&["run", "generate.yaml", "--json", "--yes", "-i", "ask=@ask.txt"]);
    let mut command = itself::command(app, &words, scratch.path())?;
    command.env.extend(app.settings.credentials_env());
    let done = command
        .run(b"", 16 * 1024 * 1024, tokio::time::Instant::now() + PATIENCE)
        .await
        .map_err(|error| Failure::environment(format!("the model could not be asked: {error}")))?;
    let run: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    match run["outputs"]["text"].as_str() {
        Some(answer) => Ok(fenced(answer)),
        None => {
            app.console.err(String::from_utf8_lossy(&done.stderr).trim_end());
            Err(Failure::environment("the model gave no answer")
                .help("see above; --mock makes a file from templates, without a model"))
        }
    }
}

fn ask(args: &Generate, before: &str, findings: &str) -> String {
    let profile = match args.profile {
        Profile::Development => "It is for trying things out: short prompts, few retries.",
        Profile::Production => {
            "It is for production: every model step has `retry`, `timeout` and `output_schema` where data is wanted, and the workflow has a `budget`."
        }
    };
    let complexity = match args.complexity {
        Complexity::Simple => "One or two steps.",
        Complexity::Medium => "Three to six steps.",
        Complexity::Complex => {
            "As many steps as it needs, with loops, conditions and fan-outs where they help."
        }
    };
    let mut text = format!(
        "Write a pipeline file in YAML for this request:\n\n{}\n\n{profile} {complexity}\n\nAnswer with the file only. The language, by example:\n\n",
        args.request
    );
    for template in TEMPLATES {
        text.push_str(&format!("# {}\n{}\n", template.about, template.text));
    }
    if !findings.is_empty() {
        text.push_str(&format!("\nThis was your last draft:\n\n{before}\n\nIt cannot run:\n\n{findings}\nWrite the whole file again without these errors.\n"));
    }
    text
}

/// The file in an answer: what stands in its first fence, or all of it.
fn fenced(answer: &str) -> String {
    let inside = answer.split_once("```").and_then(|(_, rest)| rest.split_once('\n')).map(|(_, rest)| rest);
    let text = inside.map_or(answer, |rest| rest.split("```").next().unwrap_or(rest));
    format!("{}\n", text.trim())
}

/// The template that fits a request best, by its words, with the request as its description.
fn template(request: &str) -> String {
    let words = request.to_lowercase();
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let name = if has(&["each", "every", "all ", "many", "parallel", "list of"]) {
        "fan-out"
    } else if has(&["until", "improve", "iterate", "refine", "loop"]) {
        "loop"
    } else if has(&["extract", "schema", "json", "fields", "data"]) {
        "extract"
    } else if has(&["then", "steps", "review", "critique"]) {
        "chain"
    } else {
        "prompt"
    };
    let text = TEMPLATES.iter().find(|t| t.name == name).map_or("", |t| t.text);
    let described = serde_json::to_string(request).unwrap_or_default();
    text.lines()
        .map(|line| match line.strip_prefix("  description:") {
            Some(_) => format!("  description: {described}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

/// A file name out of a request.
fn slug(request: &str) -> String {
    let words: Vec<String> = request
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(5)
        .map(str::to_lowercase)
        .collect();
    if words.is_empty() { "pipeline".to_owned() } else { words.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_stands_in_its_fence() {
        assert_eq!(fenced("Here:\n```yaml\na: 1\n```\nDone"), "a: 1\n");
        assert_eq!(fenced("a: 1"), "a: 1\n");
    }

    #[test]
    fn a_request_names_its_template_and_its_file() {
        assert!(template("Summarise every file").contains("for_loop"));
        assert!(template("say \"hi\": now").contains(r#"description: "say \"hi\": now""#));
        assert_eq!(slug("Summarise every *.rs file, please now"), "summarise-every-rs-file-please");
        assert_eq!(slug("…"), "pipeline");
    }
}
