//! Asks before the first live run of a file that can start programs and has no limit on what it costs.
//!
//! Owns what is said, and to whom: a person at a terminal is asked, a build server is warned.

use std::io::{BufRead, Write};

use pipeline_core::catalog::Catalog;
use pipeline_core::plan::Plan;
use pipeline_core::store::CheckpointStore;

use crate::app::App;
use crate::console::{YELLOW, paint, visible};
use crate::exit::Failure;
use crate::settings::Mode;
use crate::walk;

/// What the command line says of a file that is to run.
pub struct Asked<'a> {
    /// The file.
    pub file: &'a str,
    /// The answer is yes.
    pub yes: bool,
    /// A limit from outside.
    pub max_cost_usd: Option<f64>,
}

/// Goes on when nothing must be asked, or when the answer is yes.
///
/// # Errors
/// A usage [`Failure`] when the answer is no: nothing has run.
pub async fn consent(
    app: &App,
    asked: Asked<'_>,
    plan: &Plan,
    mode: Mode,
    catalog: &Catalog,
    store: &dyn CheckpointStore,
) -> Result<(), Failure> {
    if mode == Mode::Mock || asked.yes {
        return Ok(());
    }
    let limits = app.settings.config.max_cost_usd.or(asked.max_cost_usd);
    let has_budget = limits.is_some() || plan.root().budget.max_cost_usd.is_some();
    let Some(why) = reason(&walk::starters(plan, catalog), has_budget) else { return Ok(()) };
    let has_run_before = store.list().await?.iter().any(|run| {
        run.mode != Mode::Mock.name() && run.source_path == asked.file && run.workflow == *plan.root().name
    });
    if has_run_before {
        return Ok(());
    }
    app.console.err(&format!("{} {}", paint(YELLOW, "warning:"), visible(&why)));
    if !app.settings.interactive || app.settings.is_ci() {
        return Ok(());
    }
    if ask("Run it? [y/N] ") {
        return Ok(());
    }
    Err(Failure::usage("nothing was run")
        .help("answer `y`, or give --yes; --max-cost-usd sets a limit; `pipeline plan` tells what would run"))
}

/// What somebody should know before the first run; `None` when there is nothing.
fn reason(starters: &[String], has_budget: bool) -> Option<String> {
    if starters.is_empty() || has_budget {
        return None;
    }
    let more = starters.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = starters.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    Some(format!(
        "this is the first live run of this file: {names}{more} can start programs on this machine, and there is no limit on what it costs"
    ))
}

fn ask(question: &str) -> bool {
    let mut stream = std::io::stderr();
    // When nobody can be asked, nobody has said yes.
    if stream.write_all(question.as_bytes()).and_then(|()| stream.flush()).is_err() {
        return false;
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok_and(|_| is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_starts_programs_without_a_budget_is_asked_about() {
        let steps: Vec<String> = ["`a` (shell)", "`b` (agent)", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(reason(&[], false), None);
        assert_eq!(reason(&steps, true), None);
        assert!(
            reason(&steps, false).is_some_and(|why| why.contains("`a` (shell), `b` (agent), c and 1 more"))
        );
        assert!(is_yes("Y\n") && is_yes("yes") && !is_yes("\n") && !is_yes("no"));
    }
}
