//! `pipeline init`, `new` and `completions`, `man`: what one needs to begin.
//!
//! Owns the templates. A file that exists is never written over: it is created exclusively, so that two programs cannot
//! both believe that the name was free.

use std::io::{ErrorKind, Write};
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::app::App;
use crate::args::{Cli, Completions, Init, New};
use crate::exit::{Exit, Failure};
use crate::sources::reason;

/// A pipeline to begin with.
pub struct Template {
    /// How it is asked for.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The file.
    pub text: &'static str,
}

/// All templates; the first is what `init` writes.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "prompt",
        about: "one question, one answer",
        text: include_str!("../../templates/prompt.yaml"),
    },
    Template {
        name: "chain",
        about: "steps that build on each other, the last one saved to a file",
        text: include_str!("../../templates/chain.yaml"),
    },
    Template {
        name: "fan-out",
        about: "the same question for each item of a list, at once",
        text: include_str!("../../templates/fan-out.yaml"),
    },
    Template {
        name: "loop",
        about: "a draft that is improved until it is good enough",
        text: include_str!("../../templates/loop.yaml"),
    },
    Template {
        name: "extract",
        about: "data that fits a schema, out of text",
        text: include_str!("../../templates/extract.yaml"),
    },
];

/// Writes a first pipeline, a case that tests it, and the schema for editors.
///
/// # Errors
/// [`Failure`] when a file exists or cannot be written.
pub fn init(app: &App, args: &Init) -> Result<Exit, Failure> {
    let folder = app.settings.absolute(&args.dir);
    let files = [
        ("pipeline.yaml", TEMPLATES[0].text.to_owned()),
        ("tests/answers.yaml", include_str!("../../templates/case.yaml").to_owned()),
        ("pipeline.schema.json", super::schema::text(app)?),
        (".gitignore", "/.pipeline\n/outputs\n/workspace\n".to_owned()),
    ];
    for (name, _) in files.iter().filter(|(name, _)| *name != ".gitignore") {
        if folder.join(name).exists() {
            return Err(exists(&args.dir.join(name)));
        }
    }
    let mut written = Vec::new();
    for (name, text) in &files {
        if *name == ".gitignore" && folder.join(name).exists() {
            continue;
        }
        create(app, &args.dir.join(name), text)?;
        let shown = args.dir.join(name);
        written.push(shown.strip_prefix(".").unwrap_or(&shown).display().to_string());
    }
    tell(app, &written)?;
    app.console.note("next: `pipeline check pipeline.yaml`, then `pipeline run pipeline.yaml --mock`, then `pipeline test tests`");
    Ok(Exit::Success)
}

/// Writes a pipeline from a template.
///
/// # Errors
/// [`Failure`] for a template that there is not, and as [`init`].
pub fn new(app: &App, args: &New) -> Result<Exit, Failure> {
    let Some(template) = TEMPLATES.iter().find(|t| t.name == args.template) else {
        let names: Vec<String> = TEMPLATES.iter().map(|t| format!("{} ({})", t.name, t.about)).collect();
        return Err(Failure::usage(format!("there is no template `{}`", args.template))
            .help(format!("the templates are {}", names.join(", "))));
    };
    let file = args.output.clone().unwrap_or_else(|| format!("{}.yaml", template.name).into());
    create(app, &file, template.text)?;
    tell(app, &[file.display().to_string()])?;
    Ok(Exit::Success)
}

/// Prints what a shell needs to complete commands.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub fn completions(app: &App, args: &Completions) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pipeline", &mut bytes);
    app.console.out(&String::from_utf8_lossy(&bytes))?;
    Ok(Exit::Success)
}

/// Prints the manual page.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub fn man(app: &App) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut bytes)
        .map_err(|error| Failure::environment(format!("the manual page cannot be made: {error}")))?;
    app.console.out(&String::from_utf8_lossy(&bytes))?;
    Ok(Exit::Success)
}

/// Creates a file that must not exist.
///
/// # Errors
/// A usage [`Failure`] when it does, an environment one when it cannot be written.
pub fn create(app: &App, file: &Path, text: &str) -> Result<(), Failure> {
    let path = app.settings.absolute(file);
    let refused = |error: &std::io::Error| {
        Failure::environment(format!("cannot write {}: {}", file.display(), reason(error)))
            .help("name a place that can be written")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| refused(&e))?;
    }
    let mut stream = match std::fs::File::create_new(&path) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(file)),
        Err(error) => return Err(refused(&error)),
    };
    stream.write_all(text.as_bytes()).and_then(|()| stream.sync_all()).map_err(|e| refused(&e))
}

fn exists(file: &Path) -> Failure {
    Failure::usage(format!("{} exists already", file.display())).help("name another file, or remove that one")
}

fn tell(app: &App, files: &[String]) -> Result<(), Failure> {
    if app.settings.json {
        return app.console.out(&format!("{:#}\n", json!({"schema": "pipeline.written/1", "files": files})));
    }
    app.console.out(&files.iter().map(|file| format!("wrote {file}\n")).collect::<String>())
}
