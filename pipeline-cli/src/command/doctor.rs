//! `pipeline doctor`: what this machine has of what pipelines need. Looks, and changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_core::clock::{Clock, SystemClock, Timestamp};
use pipeline_core::process::sandbox::Tried;
use pipeline_core::process::{self, is_executable};
use pipeline_core::value::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::app::App;
use crate::args::Sandboxing;
use crate::console::{GREEN, RED, YELLOW, paint, visible};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::setup::run_dir;
use crate::{health, wiring};

/// 2025-01-01: a clock before this was never set.
const SET: Timestamp = Timestamp(1_735_689_600_000);

/// Longest wait for a program that tells its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Variables that say where a service is.
const PLACES: [(&str, &str); 4] = [
    ("ANTHROPIC_BASE_URL", "claude"),
    ("GOOGLE_GEMINI_BASE_URL", "gemini"),
    ("OPENAI_BASE_URL", "openai"),
    ("OLLAMA_HOST", "ollama"),
];

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
pub async fn doctor(app: &App) -> Result<Exit, Failure> {
    let mut probes = probes(&app.settings);
    probes.push(agent(&app.settings).await);
    probes.push(sandbox(&app.settings).await);
    probes.extend(services(&app.settings).await);
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
    let files: Vec<String> = settings.config.files.iter().map(|file| file.display().to_string()).collect();
    let detail = if files.is_empty() { "no file".to_owned() } else { files.join(", then ") };
    probes.push(Probe { name: "configuration".to_owned(), ok: true, needed: false, detail });
    probes.push(writable("working directory", &settings.working, false));
    probes.push(writable("state directory", &settings.state_dir(None), true));
    #[cfg(unix)]
    probes.extend([free_space(&settings.state_dir(None)), open_files()]);
    probes.push(writable("output directory", &settings.output_dir(None, &file), false));
    probes.push(writable("workspace", &settings.workspace_dir(None, &file), false));
    for (provider, variables) in Settings::credentials() {
        for variable in *variables {
            let ok = settings.variable(variable).is_some();
            let detail = format!("{} (for `{provider}`)", if ok { "set" } else { "not set" });
            probes.push(Probe { name: (*variable).to_owned(), ok, needed: false, detail });
        }
    }
    probes.extend(PLACES.iter().filter_map(|(variable, provider)| {
        let detail = format!("{} (for `{provider}`)", place(settings.variable(variable)?));
        Some(Probe { name: (*variable).to_owned(), ok: true, needed: false, detail })
    }));
    for (name, entry) in &settings.config.providers {
        let at = entry.base_url.as_deref().map_or_else(|| "its own service".to_owned(), place);
        let detail = format!("{} at {at}, from the configuration", entry.kind);
        probes.push(Probe { name: format!("provider {name}"), ok: true, needed: false, detail });
    }
    probes.push(prices(settings));
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

/// Space for the state of runs. A run that finds none stops with what it has; it is better to know before.
#[cfg(unix)]
fn free_space(dir: &Path) -> Probe {
    const LEAST: u64 = 256;
    let (ok, detail) = match wiring::resources::free_space(dir) {
        Ok(bytes) => {
            let free = bytes >> 20;
            let advice = if free < LEAST { ": little for the state of runs" } else { "" };
            (free >= LEAST, format!("{free} MiB are free at {}{advice}", dir.display()))
        }
        // What is not known is neither enough nor too little.
        Err(error) => (false, format!("not known: {error}")),
    };
    Probe { name: "disk".to_owned(), ok, needed: false, detail }
}

/// Files that may be open: each child of a wide fan-out takes three, each connection one.
#[cfg(unix)]
fn open_files() -> Probe {
    const LEAST: u64 = 512;
    let (ok, detail) = match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(most) if most < LEAST => {
            (false, format!("{most} may be open: few for a wide fan-out; raise it with `ulimit -n`"))
        }
        Some(most) => (true, format!("{most} may be open")),
        None => (true, "as many as wanted".to_owned()),
    };
    Probe { name: "open files".to_owned(), ok, needed: false, detail }
}

/// The agent CLI, and the version that it tells.
#[expect(clippy::disallowed_methods, reason = "a person asks, and no step")]
async fn agent(settings: &Settings) -> Probe {
    let name = "executable claude".to_owned();
    let Some(program) = executable(settings, "claude") else {
        return Probe { name, ok: false, needed: false, detail: "not found in PATH".to_owned() };
    };
    let command =
        process::Command { env: settings.child_env(), ..process::Command::new(&program, ["--version"]) };
    let told = match command.run(&[], 4096, Instant::now() + PATIENCE).await {
        Ok(done) if done.status.success() => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        Ok(done) => Err(format!("`--version` ended with {}", done.status)),
        Err(error) => Err(error.message),
    };
    let ok = told.is_ok();
    let told = told.unwrap_or_else(|why| why);
    Probe { name, ok, needed: false, detail: format!("{}: {told}", program.display()) }
}

/// Whether a sandbox can be made, which is tried. Nothing that starts programs runs without it where it is asked for everywhere.
async fn sandbox(settings: &Settings) -> Probe {
    let is_everywhere = settings.sandbox(false, &Sandboxing::default());
    let found = process::sandbox::find(settings.variable("PATH"), &Tried::default()).await;
    let ok = found.is_ok();
    let detail = match found {
        Ok(bwrap) => {
            let asked = if is_everywhere { ", and every file has it" } else { "" };
            format!("{} makes one{asked}", bwrap.display())
        }
        Err(error) => format!("{}; {}", error.message, error.help.unwrap_or_default()),
    };
    Probe { name: "sandbox".to_owned(), ok, needed: is_everywhere, detail }
}

/// How the services of the newest run were at its end, where that is known.
async fn services(settings: &Settings) -> Option<Probe> {
    let state_dir = settings.state_dir(None);
    let run = crate::app::store(&state_dir).latest().await.ok()??;
    let services = health::kept(&run_dir(&state_dir, &run))?;
    let detail = format!("of run {run}: {}", health::words(&services));
    Some(Probe { name: "services".to_owned(), ok: health::is_well(&services), needed: false, detail })
}

/// Where a program is found on the path.
fn executable(settings: &Settings, program: &str) -> Option<PathBuf> {
    let folders = settings.variable("PATH").unwrap_or("");
    std::env::split_paths(folders).map(|folder| folder.join(program)).find(|path| is_executable(path))
}

/// The prices and their day.
fn prices(settings: &Settings) -> Probe {
    let own = &settings.config.prices;
    let (ok, built_in) = match wiring::prices_as_of() {
        Ok(day) => (true, format!("as of {day}")),
        Err(why) => (false, why),
    };
    let detail = match &own.as_of {
        Some(day) => format!("{built_in}; {} of your own as of {day}", own.models.len()),
        None => built_in,
    };
    Probe { name: "prices".to_owned(), ok, needed: false, detail }
}

/// Scheme, host and port: the rest of a URL may hold secrets.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
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
    fn space_and_files_are_told_and_what_is_not_known_is_not_enough() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_space(&dir.path().join("not/there/yet"));
        let mib: u64 = free.detail.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(free.ok, mib >= 256, "{}", free.detail);
        assert!(!free_space(Path::new("")).ok, "nobody knows about nothing");
        let files = open_files();
        assert!(files.detail.contains("may be open") || files.detail.contains("as many"), "{}", files.detail);
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

    #[tokio::test]
    async fn an_agent_tells_its_version_or_why_it_does_not() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("claude");
        std::fs::write(&program, "#!/bin/sh\n[ $1 = --version ] && echo 9.9.9").unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = [("PATH", path)];
        let found = agent(&settings(dir.path(), &path)).await;
        assert!(found.ok && found.detail.ends_with("claude: 9.9.9"), "{}", found.detail);
        std::fs::write(&program, "#!/bin/sh\nexit 3").unwrap();
        let broken = agent(&settings(dir.path(), &path)).await;
        assert!(!broken.ok && broken.detail.contains("exit status: 3"), "{}", broken.detail);
        assert!(!agent(&settings(dir.path(), &[("PATH", "/nowhere")])).await.ok);
    }

    #[test]
    fn places_are_told_without_what_may_be_secret() {
        assert_eq!(place("https://me:pw@host:8/v1?key=x"), "https://host:8");
        assert_eq!(place("127.0.0.1:11434"), "127.0.0.1:11434");
    }
}
