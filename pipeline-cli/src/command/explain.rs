//! `pipeline explain`: the long form of a finding's code.

use serde_json::json;

use crate::app::App;
use crate::args::Explain;
use crate::exit::{Exit, Failure};

/// Prints what a code means.
///
/// # Errors
/// A usage [`Failure`] for a code that there is not.
pub fn explain(app: &App, args: &Explain) -> Result<Exit, Failure> {
    let code = args.code.trim().trim_matches(['[', ']']).to_uppercase();
    let Some(doc) = pipeline_core::codes::explain(&code) else {
        return Err(Failure::usage(format!("there is no code `{}`", args.code))
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
