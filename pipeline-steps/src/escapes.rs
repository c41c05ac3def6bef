//! Attempts to leave the directories that a run may use: none succeeds, and none hangs.
//!
//! Every path of a list goes through every operation that takes a path. Outside lie a secret that must not be read and files
//! that must not change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use pipeline_core::conformance::trials::Trials;
use pipeline_core::error::StepError;
use pipeline_core::planted::{Bug, planted};
use pipeline_core::step::{Step, StepOutput};
use pipeline_core::store::OutputWriter;
use serde_json::{Value, json};

use crate::file_ops::FileOps;
use crate::fixture::Fixture;
use crate::outputs::OutputFiles;
use crate::prompt::Prompt;

const SECRET: &str = "canary-5921";

/// A world with traps inside and treasure outside.
fn world() -> Fixture {
    let fx = Fixture::new();
    for name in ["secret", "rows.csv", "rows.json"] {
        std::fs::write(fx.outside(name), format!("a,b\n{SECRET},1\n")).unwrap();
    }
    std::fs::create_dir(fx.outside("dir")).unwrap();
    std::fs::write(fx.outside("dir/deep.csv"), SECRET).unwrap();
    for name in ["workspace/in", "outputs"] {
        std::fs::create_dir_all(fx.path(name)).unwrap();
    }
    fx.write("workspace/in/fine.csv", "a\n1\n");
    let links = [
        ("workspace/to_file", fx.outside("secret")),
        ("workspace/to_dir", fx.outside("dir")),
        ("workspace/to_root", "/".into()),
        ("workspace/up", "../..".into()),
        ("workspace/in/relative", "../../../outside/secret".into()),
        ("workspace/chain", "to_dir".into()),
        ("workspace/chain2", "chain/deep.csv".into()),
        ("workspace/dangling", fx.outside("new_file")),
        ("workspace/proc", "/proc/self/root".into()),
        ("workspace/fd", "/proc/self/fd".into()),
        ("outputs/to_dir", fx.outside("dir")),
    ];
    // A program that follows such links must have nothing to find there but what is the test's own.
    let is_safe = |target: &Path| {
        !planted(Bug::JoinPaths) || !target.is_absolute() || target.starts_with(fx.outside(""))
    };
    for (name, target) in links.into_iter().filter(|(_, target)| is_safe(target)) {
        symlink(target, fx.path(name)).unwrap();
    }
    let fifo = fx.path("workspace/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    fx
}

fn paths(fx: &Fixture) -> Vec<String> {
    let outside = fx.outside("secret").display().to_string();
    let long = "x".repeat(300);
    let deep = format!("workspace/{}secret", "in/../".repeat(700));
    let mut all: Vec<String> = [
        "../outside/secret",
        "workspace/../../outside/secret",
        "./../outside/./secret",
        "workspace/in/../../../outside/secret",
        "workspace/to_file",
        "workspace/to_dir/deep.csv",
        "workspace/to_dir",
        "workspace/up/outside/secret",
        "workspace/in/relative",
        "workspace/chain/deep.csv",
        "workspace/chain2",
        "workspace/dangling",
        "workspace/fifo",
        "..\\outside\\secret",
        "workspace/\u{2024}\u{2024}/\u{2024}\u{2024}/outside/secret",
        "workspace/a\0b",
        "",
        "workspace/../..",
        "~/.ssh/id_rsa",
        "file:///outside/secret",
        "workspace/to_dir/new.csv",
        "$HOME/x",
        "%2e%2e/outside/secret",
    ]
    .map(str::to_owned)
    .to_vec();
    let many_up = format!("{}{}", "../".repeat(40), outside.trim_start_matches('/'));
    let by_proc = format!("/proc/self/root{outside}");
    all.extend([outside, long.clone(), deep, many_up, by_proc, format!("workspace/{long}/x")]);
    // What the system has is tried only by a program that is thought to refuse it, never by one with the bug planted: that
    // one would really write there.
    if !planted(Bug::JoinPaths) {
        all.extend(OF_THE_SYSTEM.map(str::to_owned));
    }
    all
}

const OF_THE_SYSTEM: [&str; 9] = [
    "workspace/to_root/etc/passwd",
    "workspace/proc/etc/passwd",
    "workspace/fd/0",
    "/proc/self/root/etc/passwd",
    "/proc/self/environ",
    "/proc/self/cwd/../outside/secret",
    "/etc/passwd",
    "/dev/zero",
    "../../../../../../../../../../../../etc/passwd",
];

/// Every use of a path as a configuration.
fn uses(path: &str) -> Vec<Value> {
    vec![
        json!({"operation": "copy", "source": path, "destination": "workspace/out.csv"}),
        json!({"operation": "copy", "source": path, "destination": "workspace/outdir/", "recursive": true}),
        json!({"operation": "copy", "source": "workspace/in/fine.csv", "destination": path}),
        json!({"operation": "move", "source": path, "destination": "workspace/out.csv"}),
        json!({"operation": "move", "source": "workspace/in/fine.csv", "destination": path}),
        json!({"operation": "delete", "path": path, "recursive": true}),
        json!({"operation": "list", "path": path, "recursive": true}),
        json!({"operation": "copy", "source": format!("{path}/*"), "destination": "workspace/outdir/"}),
        json!({"operation": "validate", "files": [{"path": path, "must_be_file": true}]}),
        json!({"operation": "convert", "source": path, "destination": "workspace/out.json", "format": "csv_to_json"}),
        json!({"operation": "convert", "source": "workspace/in/fine.csv", "destination": path, "format": "csv_to_json"}),
        json!({"operation": "stream_process", "source": path, "processor": "uppercase"}),
        json!({"operation": "stream_process", "source": "workspace/in/fine.csv", "destination": path, "processor": "trim"}),
    ]
}

/// Every file below a directory with its text; links are not followed.
fn tree(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(tree(&path));
        } else if kind.is_file() {
            found.push((
                path.display().to_string(),
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
            ));
        }
    }
    found.sort();
    found
}

async fn attempt(fx: &Fixture, with: &Value) -> Result<StepOutput, StepError> {
    let cx = fx.context();
    let work = FileOps.run(&cx, with.clone().into());
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("it hangs: {with}"))
}

/// One path through one use of it, in a world of its own: what one attempt does may not help the next.
async fn escape(number: usize, index: usize) {
    let fx = world();
    let before = tree(&fx.outside(""));
    let path = paths(&fx)[number].clone();
    let with = uses(&path)[index].clone();
    let outcome = attempt(&fx, &with).await;
    assert_eq!(tree(&fx.outside("")), before, "something outside changed: {with}");
    for (name, text) in tree(&fx.path("")) {
        let is_from_outside = text.contains(SECRET) || text.contains("root:");
        assert!(!is_from_outside, "{name} was read from outside by {with}");
    }
    if let Ok(output) = outcome {
        let is_from_outside = output.value.to_string().contains("deep.csv") && path.contains("to_");
        assert!(!is_from_outside, "{with}: {}", output.value);
    }
}

/// A file of an output under that name.
async fn escaping_output(number: usize) {
    let fx = world();
    let before = tree(&fx.outside(""));
    let path = paths(&fx)[number].clone();
    let run = fx.context().run;
    let written = tokio::time::timeout(Duration::from_secs(10), OutputFiles.write(&run, &path, "mine")).await;
    if let Ok(target) = written.expect("it hangs") {
        assert!(target.starts_with(fx.path("outputs")), "{path} became {}", target.display());
    }
    assert_eq!(tree(&fx.outside("")), before, "{path} was written outside");
}

/// Naive: paths joined and compared as text, and opened by name.
#[tokio::test]
async fn x13_t12_no_path_leaves_its_root_whatever_uses_it() {
    let trials = Trials::of("T12", 400);
    let (paths, uses) = (paths(&world()), uses(""));
    for (number, path) in paths.iter().enumerate() {
        for index in 0..uses.len() {
            trials.try_while(path, escape(number, index)).await;
        }
        trials.try_while(path, escaping_output(number)).await;
    }
    let fx = world();
    let attacker = Swapping::begin(&fx);
    let mut good = 0;
    for attempt in 0..trials.wanted() {
        trials.try_while(&format!("swapped, attempt {attempt}"), swapped(&fx, &mut good)).await;
    }
    let swaps = attacker.end();
    trials.try_out("swapped", || {
        assert!(swaps > 100 && good > 0, "both sides did something: {swaps} swaps, {good} good reads");
        assert_eq!(tree(&fx.outside("dir")).len(), 1, "nothing was written outside");
    });
    let wanted = trials.wanted();
    trials.finish(format!(
        "{} paths in {} uses each: nothing outside read or written; {swaps} swaps of a folder for a link during {} reads and writes",
        paths.len(),
        uses.len() + 1,
        wanted * 2,
    ));
}

/// A read and a write through the folder that is being swapped.
async fn swapped(fx: &Fixture, good: &mut usize) {
    let read =
        json!({"operation": "copy", "source": "workspace/swap/deep.csv", "destination": "workspace/got"});
    if attempt(fx, &read).await.is_ok() {
        *good += 1;
        assert_eq!(std::fs::read_to_string(fx.path("workspace/got")).unwrap(), "fine");
    }
    let write = json!({"operation": "copy", "source": "workspace/in/fine.csv", "destination": "workspace/swap/deep2.csv"});
    let _refused_or_inside = attempt(fx, &write).await;
}

/// Somebody who swaps `workspace/swap` between a directory inside and one outside, as fast as they can.
struct Swapping {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Swapping {
    fn begin(fx: &Fixture) -> Self {
        let (own, trap) = (fx.path("workspace/swap"), fx.outside("dir"));
        std::fs::create_dir(fx.path("workspace/real")).unwrap();
        std::fs::write(fx.path("workspace/real/deep.csv"), "fine").unwrap();
        symlink("real", &own).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = std::sync::Arc::clone(&stop);
        let spare = fx.path("workspace/spare");
        #[expect(clippy::disallowed_methods, reason = "the attacker of the test")]
        let thread = std::thread::spawn(move || {
            let mut swaps = 0_u64;
            while !flag.load(std::sync::atomic::Ordering::Relaxed) {
                let target = if swaps.is_multiple_of(2) { trap.as_path() } else { Path::new("real") };
                // A rename in the way of another is tried again in the next turn.
                let _ = std::fs::remove_file(&spare);
                let _ = symlink(target, &spare).and_then(|()| std::fs::rename(&spare, &own));
                swaps += 1;
            }
            swaps
        });
        Self { stop, thread }
    }

    /// How often they swapped.
    fn end(self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Every form in which a part of a prompt names files.
fn parts(path: &str) -> Vec<Value> {
    vec![
        json!([{"type": "file", "path": path}]),
        json!([{"type": "file", "path": format!("{path}/")}]),
        json!([{"type": "file", "path": format!("{path}/*")}]),
        json!([{"type": "file", "path": format!("{path}/**/*")}]),
        json!([{"type": "file", "path": format!("{path}*")}]),
        json!([{"type": "file", "path": path, "encoding": "latin-1"}]),
        json!([{"type": "file", "path": path, "inject_as": "x"}, {"type": "static", "content": "{x}"}]),
    ]
}

/// Naive: a file of a prompt is opened by its name, and sent to a vendor.
#[tokio::test]
async fn x13_no_file_of_a_prompt_lies_outside() {
    let mut attempts = 0;
    for (number, _) in paths(&world()).iter().enumerate() {
        // Reading changes nothing: one world does for all forms.
        let fx = world();
        *fx.provider.answers.lock() = (0..9).map(|_| Ok(crate::fixture::answer("seen"))).collect();
        let path = paths(&fx)[number].clone();
        for prompt in parts(&path) {
            let with = json!({"provider": "test", "prompt": prompt});
            let cx = fx.context();
            let step = Prompt::new(std::sync::Arc::default());
            let work = step.run(&cx, with.clone().into());
            let outcome = tokio::time::timeout(Duration::from_secs(10), work).await;
            let _refused_or_inside = outcome.unwrap_or_else(|_| panic!("it hangs: {with}"));
            attempts += 1;
        }
        for request in fx.requests() {
            let sent = format!("{request:?}");
            for trace in [SECRET, "root:", "PATH="] {
                assert!(!sent.contains(trace), "{path} was read from outside: {sent}");
            }
        }
    }
    assert!(attempts >= 200, "only {attempts} attempts");
    // The same forms find what lies inside.
    let fx = world();
    *fx.provider.answers.lock() = vec![Ok(crate::fixture::answer("seen"))].into();
    let with = json!({"provider": "test", "prompt": parts("workspace/in")[2]});
    let _error_of_the_link_beside_it =
        Prompt::new(std::sync::Arc::default()).run(&fx.context(), with.into()).await;
    std::fs::remove_file(fx.path("workspace/in/relative")).unwrap();
    let with = json!({"provider": "test", "prompt": parts("workspace/in")[2]});
    Prompt::new(std::sync::Arc::default()).run(&fx.context(), with.into()).await.unwrap();
    assert!(format!("{:?}", fx.requests()).contains("a\\n1"));
}

/// Naive: the directory of a prompt's files is checked, and then read by its name again.
#[tokio::test]
async fn x13_a_prompt_reads_nothing_through_a_link_that_is_swapped_in() {
    let fx = world();
    let attacker = Swapping::begin(&fx);
    let mut good = 0;
    for round in 0..300 {
        *fx.provider.answers.lock() = vec![Ok(crate::fixture::answer("seen"))].into();
        let path = ["workspace/swap/deep.csv", "workspace/swap", "workspace/swap/*"][round % 3];
        let with = json!({"provider": "test", "prompt": [{"type": "file", "path": path}]});
        good +=
            u32::from(Prompt::new(std::sync::Arc::default()).run(&fx.context(), with.into()).await.is_ok());
    }
    assert!(attacker.end() > 100 && good > 0, "both sides did something");
    assert!(fx.requests().iter().all(|request| !format!("{request:?}").contains(SECRET)));
}
