//! `pipeline report RUN -o F.html`: a run as one page that needs nothing else.

use std::io::Write;
use std::sync::Arc;

use pipeline_core::engine::Engine;
use serde_json::json;

use super::resume::{compile_again, inspect};
use super::runs::Place;
use crate::app::{self, App};
use crate::args::Report;
use crate::exit::{Exit, Failure};
use crate::figures::Figures;
use crate::report::page::{Page, Story};
use crate::report::picture::Picture;
use crate::settings::Mode;
use crate::setup::{Kept, run_dir};
use crate::sources::reason;

/// Writes the page.
///
/// # Errors
/// [`Failure`] when the run cannot be read or the file cannot be written.
pub async fn report(app: &App, args: &Report) -> Result<Exit, Failure> {
    let state_dir = app.settings.state_dir(None);
    let store = app::store(&state_dir);
    let place = Place { app, store: &*store, state_dir: &state_dir };
    let stored = place.read(args.run.as_deref()).await?;
    let report = inspect(app, &state_dir, &stored)?;
    let kinds = app.kinds(Mode::Mock, None)?;
    let plan = Arc::new(compile_again(app, &stored.manifest, &stored.sources, &kinds)?);
    let setup = Kept::of(&stored.manifest)?.setup(&stored.manifest, run_dir(&state_dir, &report.run_id));
    let calls = Engine::calls(&plan, &setup, &stored)?;
    let figures = Figures::of(&stored.records);
    let story = Story::of(&stored.records, &calls);
    let page = Page {
        report: &report,
        manifest: &stored.manifest,
        figures: &figures,
        picture: &Picture::of(&plan),
        story: &story,
    };
    let html = page.html();
    if args.output.as_os_str() == "-" {
        app.console.out(&html)?;
        return Ok(Exit::Success);
    }
    let path = app.settings.absolute(&args.output);
    let shown = args.output.display();
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(html.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| {
        Failure::environment(format!("cannot write {shown}: {}", reason(&error)))
            .help("name a file in a directory that can be written after -o")
    })?;
    if app.settings.json {
        let document = json!({"schema": "pipeline.report/1", "run_id": report.run_id, "file": path, "bytes": html.len()});
        app.console.out(&format!("{document:#}\n"))?;
    } else {
        app.console.note(&format!("wrote {shown} ({} kB)", html.len().div_ceil(1000)));
    }
    Ok(Exit::Success)
}
