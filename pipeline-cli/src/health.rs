//! How the services of a run are: its observers, and the servers of its tools.
//!
//! Owns `services.json` in a run's directory, for `runs show` and `doctor`. It is written by the process that worked on the run
//! last, at its end; where that process was killed there is none, so that nothing is told of what nobody knows. Must not
//! know how a service is begun again.

use std::path::Path;

use pipeline_core::redact::Redactor;
use pipeline_core::service::{Health, State};

use crate::console::short;
use crate::monitor::replace;
use crate::sources::reason;

const FILE: &str = "services.json";

/// What is known is of an earlier process: a run goes on.
pub fn forget(run_dir: &Path) {
    // What cannot be removed cannot be replaced either, and that is told.
    let _ = std::fs::remove_file(run_dir.join(FILE));
}

/// Keeps how the services were at the end.
///
/// # Errors
/// A sentence, when the file cannot be written.
pub fn keep(run_dir: &Path, services: &[Health], redactor: &Redactor) -> Result<(), String> {
    let clean = |health: &Health| Health {
        trouble: health.trouble.as_ref().map(|trouble| redactor.text(trouble)),
        ..health.clone()
    };
    let services: Vec<Health> = services.iter().map(clean).collect();
    let written = serde_json::to_string(&services).map_err(std::io::Error::other);
    let written = written.and_then(|text| replace(&run_dir.join(FILE), &text));
    written.map_err(|error| format!("how the run's services are could not be written: {}", reason(&error)))
}

/// How they were; `None` = nobody knows.
pub fn kept(run_dir: &Path) -> Option<Vec<Health>> {
    serde_json::from_str(&std::fs::read_to_string(run_dir.join(FILE)).ok()?).ok()
}

/// Whether all of them work.
pub fn is_well(services: &[Health]) -> bool {
    services.iter().all(|health| health.state == State::Up)
}

/// `figures ok, mcp files ok (2 restarts, the last: it ended), telemetry DOWN (it answered 500)`.
pub fn words(services: &[Health]) -> String {
    let one = |health: &Health| {
        let state = if health.state == State::Up { "ok" } else { "DOWN" };
        let trouble = health.trouble.as_deref().map(|trouble| short(trouble, 200));
        let about = match (health.restarts, trouble) {
            (0, None) => String::new(),
            (0, Some(why)) => format!(" ({why})"),
            (times, why) => {
                let why = why.map_or_else(String::new, |why| format!(", the last: {why}"));
                format!(" ({times} restarts{why})")
            }
        };
        format!("{} {state}{about}", short(&health.service, 60))
    };
    services.iter().map(one).collect::<Vec<_>>().join(", ")
}
