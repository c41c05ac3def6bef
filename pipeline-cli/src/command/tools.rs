//! `pipeline tools`: what tools there are, and calling one by hand.

use std::sync::Arc;
use std::time::Duration;

use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::error::StepError;
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::plan::{CompileOptions, Plan};
use pipeline_core::step::{EffectPort, ProgressPort, RunDirs, RunInfo, StepContext};
use pipeline_core::tool::ToolSpec;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::work::tell_findings;
use crate::app::{self, App, Workshop};
use crate::args::{Permissions, Tools};
use crate::console::visible;
use crate::exit::{Exit, Failure};
use crate::settings::Mode;
use crate::setup::Kept;

/// How long a call by hand may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lists, shows or calls tools.
///
/// # Errors
/// [`Failure`] for a file that cannot be compiled, an unknown tool, or arguments that are no object.
pub async fn tools(app: &App, args: &Tools) -> Result<Exit, Failure> {
    let none = Permissions::default();
    let (file, may) = match args {
        Tools::List(args) => (args.file.as_deref(), &none),
        Tools::Show(args) => (args.file.as_deref(), &none),
        Tools::Call(args) => (args.file.as_deref(), &args.permissions),
    };
    let Some((workshop, cx, servers)) = bench(app, file, may)? else { return Ok(Exit::Usage) };
    let done = work(app, args, &workshop, &cx, &servers).await;
    workshop.close().await;
    done
}

async fn work(
    app: &App,
    args: &Tools,
    workshop: &Workshop,
    cx: &StepContext,
    servers: &[String],
) -> Result<Exit, Failure> {
    let source = &workshop.engine.services.tools;
    let specs = |tools: Vec<Arc<dyn pipeline_core::tool::Tool>>| -> Vec<ToolSpec> {
        tools.iter().map(|tool| tool.spec()).collect()
    };
    match args {
        Tools::List(_) => {
            let mut all = source.list();
            let mut exit = Exit::Success;
            for server in servers {
                match source.open(&format!("mcp__{server}"), cx).await {
                    Ok(tools) => all.extend(specs(tools)),
                    Err(error) => {
                        app.console.err(&format!("{}", failure(error)));
                        exit = Exit::Environment;
                    }
                }
            }
            show(app, &all, false)?;
            Ok(exit)
        }
        Tools::Show(one) => {
            let tools = source.open(&one.name, cx).await.map_err(failure)?;
            show(app, &specs(tools), true)?;
            Ok(Exit::Success)
        }
        Tools::Call(call) => {
            let arguments: Map<String, Value> = serde_json::from_str(&call.arguments).map_err(|error| {
                Failure::usage(format!("the arguments are not a JSON object: {error}"))
                    .help("write for example '{\"path\": \"notes.md\"}'")
            })?;
            let mut tools = source.open(&call.name, cx).await.map_err(failure)?;
            let Some(tool) = tools.pop().filter(|_| tools.is_empty()) else {
                return Err(Failure::usage(format!("`{}` stands for several tools", call.name))
                    .help("name one of them; `pipeline tools show` lists them"));
            };
            // Outside of a run there is no effect whose result is cleaned.
            let redactor = &workshop.engine.services.redactor;
            let called = tool.call(Value::Object(arguments), cx).await;
            let called = called.map_err(|error| redactor.error(error));
            let (exit, result) = match called {
                Ok(output) => (
                    Exit::Success,
                    redactor.value(&json!({ "content": output.content, "data": output.data })),
                ),
                Err(error) if app.settings.json => (Exit::Failed, json!({ "error": error })),
                Err(error) => {
                    let mut failed = failure(error);
                    failed.exit = Exit::Failed;
                    return Err(failed);
                }
            };
            let content = result["content"].as_str().unwrap_or_default();
            app.console.out(&if app.settings.json {
                format!(
                    "{:#}\n",
                    json!({ "schema": "pipeline.tools/1", "tool": call.name, "result": result })
                )
            } else {
                format!("{}\n", content.trim_end())
            })?;
            Ok(exit)
        }
    }
}

fn show(app: &App, specs: &[ToolSpec], in_full: bool) -> Result<(), Failure> {
    app.console.out(&if app.settings.json {
        format!("{:#}\n", json!({ "schema": "pipeline.tools/1", "tools": specs }))
    } else {
        let line = |spec: &ToolSpec| {
            let (name, about) = (visible(&spec.name), visible(&spec.description));
            if in_full {
                format!("{name}: {about}\n{:#}\n", spec.parameters)
            } else {
                format!("{name}: {about}\n")
            }
        };
        specs.iter().map(line).collect()
    })
}

/// What a tool is called with outside of a run, and the names of the file's servers. `None` = the file has errors, which
/// were told.
fn bench(
    app: &App,
    file: Option<&str>,
    may: &Permissions,
) -> Result<Option<(Workshop, StepContext, Vec<String>)>, Failure> {
    let kinds = app.kinds(Mode::Mock, None)?;
    let plan: Option<Plan> = match file {
        None => None,
        Some(file) => {
            let loader = app.sources(&app.settings.state_dir(None));
            match app::compile(&loader, file, &kinds.catalog, &CompileOptions::default()) {
                Ok((plan, _)) => Some(plan),
                Err(checked) => {
                    tell_findings(app, &checked, true)?;
                    return Ok(None);
                }
            }
        }
    };
    let settings = plan.as_ref().map(|plan| plan.root().settings.clone()).unwrap_or_default();
    let state_dir = app.settings.state_dir(Some(&settings));
    let mut workshop = app::workshop(app, kinds, app::store(&state_dir), &state_dir);
    if let Some(plan) = &plan {
        workshop.declare(app, plan)?;
    }
    let mut kept = Kept { permissions: settings.permissions.clone(), ..Kept::default() };
    kept.allow(may, &app.settings);
    let working = app.settings.working.clone();
    let dirs = RunDirs {
        working: working.clone(),
        pipeline: working.clone(),
        // Called by hand, a tool works where the person is, and writes where it is told that it may.
        workspace: app.settings.workspace_dir(None, &settings),
        output: app.settings.output_dir(None, &settings),
        read: kept.read,
        write: kept.write,
        state: state_dir,
        ..RunDirs::default()
    };
    let run = RunInfo {
        id: "by-hand".to_owned(),
        workflow: "tools".to_owned(),
        started_at: SystemClock.now(),
        seed: 0,
        mock: false,
        dirs,
        permissions: kept.permissions,
    };
    let cx = StepContext {
        key: OpKey { path: StepPath::from("tools"), turn: 1, role: OpRole::Attempt },
        attempt: 1,
        deadline: tokio::time::Instant::now() + PATIENCE,
        cancel: CancellationToken::new(),
        workspace: run.dirs.workspace.clone(),
        run: Arc::new(run),
        services: Arc::clone(&workshop.engine.services),
        effects: EffectPort::detached(),
        progress: ProgressPort::detached(),
    };
    let servers = settings.tools.get("mcp_servers").and_then(Value::as_object);
    let servers = servers.map(|all| all.keys().cloned().collect()).unwrap_or_default();
    Ok(Some((workshop, cx, servers)))
}

fn failure(error: StepError) -> Failure {
    let failure = Failure::environment(error.message);
    match error.help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
