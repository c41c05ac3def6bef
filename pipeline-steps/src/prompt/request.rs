//! From a configuration to a request, and the refusal of what the provider cannot honour.
//!
//! Owns the lookup of everything that a step names, before anything is paid for. The compiler refuses what it can know;
//! this refuses the rest: a provider that a template named, a fallback. Must not know how an answer is got.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Capabilities, FunctionDeclaration, ModelRequest, Provider};
use pipeline_core::step::StepContext;
use pipeline_core::tool::Tool;
use pipeline_core::value::Value;
use serde_json::json;

use crate::confine::{Roots, lexical};
use crate::prompt::config::Config;
use crate::prompt::extraction::Format;
use crate::prompt::part::Text;

/// The provider when the step and the defaults name none.
const DEFAULT_PROVIDER: &str = "claude";

/// The provider that a step names.
///
/// # Errors
/// `Invalid` when there is none of the name.
pub(super) fn provider(cx: &StepContext, named: Option<&Text>) -> Result<Arc<dyn Provider>, StepError> {
    let name = named.map_or(DEFAULT_PROVIDER, |t| t.0.as_str());
    cx.services.catalog.provider(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = cx.services.catalog.providers().map(|p| p.name()).collect();
        StepError::invalid(format!("there is no provider `{name}`"))
            .help(format!("it is one of: {}", known.join(", ")))
    })
}

/// The tools that the model may call, by name.
///
/// # Errors
/// `Invalid` when there is none of a name.
pub(super) async fn tools(cx: &StepContext, config: &Config) -> Result<Vec<Arc<dyn Tool>>, StepError> {
    if config.simplify {
        return Ok(Vec::new());
    }
    let mut tools = Vec::new();
    for name in &config.tools {
        tools.extend(cx.services.tools.open(name, cx).await?);
    }
    Ok(tools)
}

/// JSON Schema that the answer must fit.
pub(super) fn schema(config: &mut Config) -> Option<Value> {
    let wants_json = config.json || config.extraction.as_ref().is_some_and(|e| e.format == Format::Json);
    config.output_schema.take().or_else(|| wants_json.then(|| json!({ "type": "object" })))
}

/// The request, without messages.
///
/// # Errors
/// `Unsupported` for what the provider cannot honour, `Denied` for a working directory that may not be written.
pub(super) fn build(
    cx: &StepContext,
    config: Config,
    schema: Option<&Value>,
    tools: &[Arc<dyn Tool>],
    provider: &dyn Provider,
) -> Result<ModelRequest, StepError> {
    let able = provider.capabilities();
    let functions = functions(&config, tools)?;
    let text = |text: Option<Text>| text.map(|t| t.0);
    let mut agent = config.options;
    agent.retain(|_, value| !value.is_null());
    let cwd = match agent.get("cwd").and_then(Value::as_str) {
        Some(written) => directory(cx, written)?,
        None => cx.workspace.clone(),
    };
    let mut append_system = text(config.append_system_prompt);
    let native = schema.filter(|_| able.structured_output).cloned();
    if let (Some(schema), None) = (schema, &native) {
        let asked = format!("Answer with nothing but one JSON value that fits this JSON Schema:\n{schema}");
        append_system =
            Some(append_system.map_or_else(|| asked.clone(), |before| format!("{before}\n\n{asked}")));
    }
    let request = ModelRequest {
        model: text(config.model),
        messages: Vec::new(),
        system: text(config.system_prompt),
        append_system,
        temperature: config.temperature,
        top_p: config.top_p,
        top_k: config.top_k,
        max_output_tokens: config.max_output_tokens,
        max_turns: config.max_turns,
        output_schema: native,
        functions,
        agent,
        session: None,
        max_cost_usd: None,
        cwd: Some(cwd),
    };
    refuse(&request, provider.name(), &able)?;
    Ok(request)
}

fn functions(config: &Config, tools: &[Arc<dyn Tool>]) -> Result<Vec<FunctionDeclaration>, StepError> {
    if config.simplify {
        return Ok(Vec::new());
    }
    let mut functions = config.functions.0.clone();
    for tool in tools {
        let spec = tool.spec();
        if functions.iter().any(|f| f.name == spec.name) {
            let message = format!("`{}` is both a declared function and a tool", spec.name);
            return Err(StepError::invalid(message).help("give one of them another name"));
        }
        let (name, description, parameters) = (spec.name, spec.description, spec.parameters);
        functions.push(FunctionDeclaration { name, description, parameters });
    }
    Ok(functions)
}

/// Where an agent works. Nothing works there on mocks, so nothing is refused there.
fn directory(cx: &StepContext, written: &str) -> Result<PathBuf, StepError> {
    let full = lexical(&cx.run.dirs.working.join(written));
    if !cx.run.mock {
        let (dir, below) = Roots::write(cx).open(Path::new(written), &cx.run.dirs.working)?;
        let made = if below == Path::new(".") { Ok(()) } else { dir.create_dir_all(&below) };
        made.map_err(|error| Roots::write(cx).failure(Path::new(written), &error))?;
    }
    Ok(full)
}

/// What the provider cannot honour is refused, never dropped.
fn refuse(request: &ModelRequest, provider: &str, able: &Capabilities) -> Result<(), StepError> {
    let fields = [
        ("temperature", request.temperature.is_some(), able.sampling),
        ("top_p", request.top_p.is_some(), able.sampling),
        ("top_k", request.top_k.is_some(), able.sampling),
        ("max_output_tokens", request.max_output_tokens.is_some(), able.max_output_tokens),
        ("functions", !request.functions.is_empty(), able.functions),
    ];
    let lacking =
        fields.iter().filter(|(_, is_asked, is_able)| *is_asked && !is_able).map(|(name, ..)| *name);
    let options = request.agent.keys().map(String::as_str).filter(|key| !able.options.contains(key));
    let lacking: Vec<&str> = lacking.chain(options).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let message = format!("`{provider}` cannot honour {}", lacking.join(", "));
    Err(StepError::new(ErrorKind::Unsupported, message).help("remove it, or choose a provider that has it"))
}
