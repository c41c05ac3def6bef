//! `pipeline explain`: the long form of a finding's code.

use serde_json::json;

use crate::app::App;
use crate::args::Explain;
use crate::command::reference;
use crate::exit::{Exit, Failure};

/// Prints what a code means.
///
/// # Errors
/// A usage [`Failure`] for a code that there is not.
pub fn explain(app: &App, args: &Explain) -> Result<Exit, Failure> {
    if args.steps || args.expressions {
        let page = if args.steps { reference::steps(app)? } else { reference::expressions() };
        app.console.out(&page)?;
        return Ok(Exit::Success);
    }
    let Some(code) = args.code.as_deref().filter(|_| !args.all) else {
        return all(app);
    };
    let asked = code;
    let code = code.trim().trim_matches(['[', ']']).to_uppercase();
    let Some(doc) = pipeline_core::codes::explain(&code) else {
        return Err(Failure::usage(format!("there is no code `{asked}`"))
            .help("codes stand in brackets in what `pipeline check` prints, for example error[E0102]"));
    };
    app.console.out(&if app.settings.json {
        let document =
            json!({"schema": "pipeline.explain/1", "code": doc.code, "title": doc.title, "text": doc.text});
        format!("{document:#}\n")
    } else {
        format!("{}: {}\n\n{}\n", doc.code, doc.title, doc.text.trim())
    })?;
    Ok(Exit::Success)
}

/// Every code, as a page or a document.
fn all(app: &App) -> Result<Exit, Failure> {
    let docs = pipeline_core::codes::all();
    app.console.out(&if app.settings.json {
        let one = |d: &pipeline_core::codes::CodeDoc| json!({"code": d.code, "title": d.title, "text": d.text.trim()});
        let document = json!({"schema": "pipeline.codes/1", "codes": docs.iter().map(one).collect::<Vec<_>>()});
        format!("{document:#}\n")
    } else {
        let one = |d: &pipeline_core::codes::CodeDoc| format!("## {}: {}\n\n{}\n\n", d.code, d.title, d.text.trim());
        format!("# Codes of findings\n\n{}", docs.iter().map(one).collect::<String>())
    })?;
    Ok(Exit::Success)
}
