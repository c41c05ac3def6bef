//! `pipeline doctor`: what this machine has of what pipelines need. Looks, and changes nothing.

use std::path::Path;

use pipeline_core::clock::{Clock, SystemClock, Timestamp};
use pipeline_core::process::is_executable;
use pipeline_core::value::Value;
use serde_json::json;

use crate::app::App;
use crate::console::{GREEN, RED, YELLOW, paint, visible};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// 2025-01-01: a clock before this was never set.
const SET: Timestamp = Timestamp(1_735_689_600_000);

/// What was looked at, and how it is.
struct Probe {
    name: String,
    /// False = something is missing.
    ok: bool,
    /// Nothing runs without it.
    needed: bool,
    detail: String,
}

/// Prints every probe; what is missing and needed gives the environment's exit code.
///
/// # Errors
/// [`Failure`] when the result cannot be written.
pub fn doctor(app: &App) -> Result<Exit, Failure> {
    let probes = probes(&app.settings);
    app.console.out(&if app.settings.json {
        format!("{:#}\n", document(&probes))
    } else {
        probes.iter().map(line).collect()
    })?;
    let is_fit = probes.iter().all(|probe| probe.ok || !probe.needed);
    Ok(if is_fit { Exit::Success } else { Exit::Environment })
}

fn probes(settings: &Settings) -> Vec<Probe> {
    let mut probes = vec![Probe {
        name: "version".to_owned(),
        ok: true,
        needed: true,
        detail: format!(
            "pipeline {} on {} {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    }];
    let file = pipeline_core::plan::Settings::default();
    probes.push(writable("working directory", &settings.working, false));
    probes.push(writable("state directory", &settings.state_dir(None), true));
    probes.push(writable("output directory", &settings.output_dir(None, &file), false));
    probes.push(writable("workspace", &settings.workspace_dir(None, &file), false));
    for (provider, variables) in Settings::credentials() {
        for variable in *variables {
            let ok = settings.variable(variable).is_some();
            let detail = format!("{} (for `{provider}`)", if ok { "set" } else { "not set" });
            probes.push(Probe { name: (*variable).to_owned(), ok, needed: false, detail });
        }
    }
    probes.push(executable(settings, "claude"));
    let now = SystemClock.now();
    probes.push(Probe { name: "clock".to_owned(), ok: now > SET, needed: false, detail: now.to_string() });
    probes
}

/// Whether files can be made there. A directory that is not there yet needs one above it that can be written.
fn writable(name: &str, dir: &Path, needed: bool) -> Probe {
    let Some(nearest) = dir.ancestors().find(|above| above.exists()) else {
        let detail = format!("{}: nothing on this path exists", dir.display());
        return Probe { name: name.to_owned(), ok: false, needed, detail };
    };
    #[cfg(unix)]
    let may = rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    #[cfg(not(unix))]
    let may = nearest.metadata().is_ok_and(|metadata| !metadata.permissions().readonly());
    let ok = nearest.is_dir() && may;
    let how = match (ok, nearest == dir) {
        (true, true) => "writable",
        (true, false) => "not there yet, and can be made",
        (false, true) => "cannot be written",
        (false, false) => "not there, and cannot be made",
    };
    Probe { name: name.to_owned(), ok, needed, detail: format!("{}: {how}", dir.display()) }
}

/// Whether a program is found; it is not started.
fn executable(settings: &Settings, program: &str) -> Probe {
    let folders = settings.variable("PATH").unwrap_or("");
    let found =
        std::env::split_paths(folders).map(|folder| folder.join(program)).find(|path| is_executable(path));
    let detail = found.as_ref().map_or_else(|| "not found in PATH".to_owned(), |p| p.display().to_string());
    Probe { name: format!("executable {program}"), ok: found.is_some(), needed: false, detail }
}

fn document(probes: &[Probe]) -> Value {
    let probe = |p: &Probe| json!({"name": p.name, "ok": p.ok, "needed": p.needed, "detail": p.detail});
    json!({"schema": "pipeline.doctor/1", "probes": probes.iter().map(probe).collect::<Vec<_>>()})
}

fn line(probe: &Probe) -> String {
    let word = match (probe.ok, probe.needed) {
        (true, _) => paint(GREEN, "ok      "),
        (false, true) => paint(RED, "missing "),
        (false, false) => paint(YELLOW, "absent  "),
    };
    format!("{word} {}: {}\n", visible(&probe.name), visible(&probe.detail))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::args::Global;

    fn settings(working: &Path, variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::new(&Global::default(), working.to_path_buf(), variables, (false, false))
    }

    #[test]
    fn it_looks_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let probes = probes(&settings(dir.path(), &[]));
        let state = probes.iter().find(|p| p.name == "state directory").unwrap();
        assert!(state.ok && state.detail.contains("can be made"), "{}", state.detail);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".pipeline"), "").unwrap();
        let probe = writable("state directory", &dir.path().join(".pipeline"), true);
        assert!(!probe.ok, "{}", probe.detail);
    }

    #[test]
    fn credentials_are_named_and_their_values_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let probes = probes(&settings(dir.path(), &[("GEMINI_API_KEY", "very-secret")]));
        let text = document(&probes).to_string();
        assert!(!text.contains("very-secret"));
        let probe = probes.iter().find(|p| p.name == "GEMINI_API_KEY").unwrap();
        assert!(probe.ok && probe.detail.starts_with("set"));
        assert!(!probes.iter().find(|p| p.name == "OPENAI_API_KEY").unwrap().ok);
    }

    #[test]
    fn an_executable_is_found_on_the_path_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("claude");
        std::fs::write(&program, "").unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(executable(&settings(dir.path(), &[("PATH", path)]), "claude").ok);
        assert!(!executable(&settings(dir.path(), &[("PATH", "/nowhere")]), "claude").ok);
    }
}
