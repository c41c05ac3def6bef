//! `pipeline graph`: draws a plan.
//!
//! What is drawn, and how, is `report/picture.rs`'s.

use pipeline_core::plan::CompileOptions;

use super::work::tell_findings;
use crate::app::{self, App};
use crate::args::{Graph, GraphFormat};
use crate::exit::{Exit, Failure};
use crate::report::picture::Picture;
use crate::settings::Mode;

/// Prints the picture of a file.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub fn graph(app: &App, args: &Graph) -> Result<Exit, Failure> {
    let kinds = app.kinds(Mode::Mock, None)?;
    let loader = app.sources(&app.settings.state_dir(None));
    let compiled = app::compile(&loader, &args.file, &kinds.catalog, &CompileOptions::default());
    let plan = match compiled {
        Ok((plan, checked)) => {
            tell_findings(app, &checked, false)?;
            plan
        }
        Err(checked) => {
            tell_findings(app, &checked, true)?;
            return Ok(Exit::Usage);
        }
    };
    let picture = Picture::of(&plan);
    let format = if app.settings.json { GraphFormat::Json } else { args.format };
    app.console.out(&match format {
        GraphFormat::Mermaid => picture.mermaid(),
        GraphFormat::Dot => picture.dot(),
        GraphFormat::Svg => picture.svg(&|_| None),
        GraphFormat::Json => format!("{:#}\n", picture.json()),
    })?;
    Ok(Exit::Success)
}
