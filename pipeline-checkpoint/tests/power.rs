//! T2 of `cargo xtask reliability`: the power goes while a journal is written to a file system of its own. What the disk has at
//! that moment is copied, and read by somebody else.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pipeline_checkpoint::FileStore;
use pipeline_core::conformance::store::{effect, manifest};
use pipeline_core::conformance::trials::{Random, Trials, skip};
use pipeline_core::store::CheckpointStore;
use serde_json::json;

use crate::support::{CHILD, block_on, sources, state_of_child, write};

const NAME: &str = "power::t02_what_was_acknowledged_survives_the_power";

/// Runs this test's program again, with a disk image mounted where only that process sees it.
fn within(image: &Path) -> Command {
    let mount = image.with_extension("mount");
    std::fs::create_dir_all(&mount).unwrap();
    // Unflushed data stay in memory for a minute: a cut loses them.
    let script = "mount -o loop,commit=60 \"$0\" \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(image).arg(&mount);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture"]);
    command.env(CHILD, mount.join("state")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the process with the image does: create a run and write into it until it is stopped, or read the one that is there.
fn work(state: PathBuf) {
    let mut out = std::io::stdout();
    let is_there = state.join("runs/run").exists();
    let store = FileStore::new(state);
    if is_there {
        match block_on(store.open("run")) {
            Ok(opened) => writeln!(out, "\nfound {}", opened.stored.records.len()).unwrap(),
            Err(error) => writeln!(out, "\nrefused: {error}").unwrap(),
        }
        return;
    }
    let mut log = block_on(store.create(&manifest("run", 1), &sources())).unwrap();
    for number in 0_u64.. {
        // Some values are files of their own.
        let size = if number % 50 == 49 { 70_000 } else { 200 };
        block_on(write(&mut *log, vec![effect(json!([number, "x".repeat(size)]))]));
        writeln!(out, "\nacknowledged {}", number + 1).unwrap();
    }
}

/// The number behind a word, in the last line that has it.
fn last(text: &str, word: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

/// One cut; how many records had been acknowledged.
fn cut(after: Duration) -> Result<u64, String> {
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("disk"), dir.path().join("copy"));
    std::fs::File::create(&image).and_then(|file| file.set_len(48 << 20)).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output().map_err(|e| e.to_string())?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let mut writer = within(&image).spawn().map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.find(|line| line.starts_with("acknowledged"));
    std::thread::sleep(after);
    let stop = |signal: &str| Command::new("kill").args([signal, &writer.id().to_string()]).status();
    stop("-STOP").map_err(|e| e.to_string())?;
    wait_until_stopped(writer.id());
    std::fs::copy(&image, &copy).map_err(|e| e.to_string())?;
    writer.kill().map_err(|e| e.to_string())?;
    let told: Vec<String> = first.into_iter().chain(lines).collect();
    writer.wait().map_err(|e| e.to_string())?;
    let Some(acknowledged) = last(&told.join("\n"), "acknowledged") else {
        return Err("nothing was written".to_owned());
    };
    let read = within(&copy).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&read.stdout);
    match last(&text, "found") {
        Some(found) if found >= acknowledged => Ok(acknowledged),
        Some(found) => Err(format!("{acknowledged} records were acknowledged, and {found} are there")),
        None => Err(format!("after {acknowledged} records: {text}{}", String::from_utf8_lossy(&read.stderr))),
    }
}

/// Until each thread stands still: one that waits for the disk does so when it is back.
fn wait_until_stopped(pid: u32) {
    for _ in 0..2_000 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let running = tasks.filter(|task| {
            std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| !stat.contains(") T "))
        });
        if running.count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether images can be made and mounted here; why not.
fn cannot() -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    std::fs::File::create(&image).and_then(|file| file.set_len(4 << 20)).unwrap();
    let script =
        "mkfs.ext4 -q -F \"$0\" && exec unshare --mount --propagation private mount -o loop \"$0\" \"$1\"";
    let tried = Command::new("sh").args(["-c", script]).arg(&image).arg(dir.path()).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            Some(format!("it needs root, mkfs.ext4 and loop devices: {why}"))
        }
        Err(error) => Some(format!("it needs root, mkfs.ext4 and loop devices: {error}")),
    }
}

/// Naive: what was handed to the system is told as saved.
/// Figure: a file system of its own, cut at random moments.
#[test]
fn t02_what_was_acknowledged_survives_the_power() {
    if let Some(state) = state_of_child() {
        return work(state);
    }
    let trials = Trials::of("T2", 1);
    if let Some(why) = cannot() {
        return skip("T2", &why);
    }
    let mut random = Random::new(trials.seed());
    let mut acknowledged = 0;
    for number in 0..trials.wanted() {
        if trials.go_on() {
            let after = Duration::from_millis(random.draw() % 400);
            let outcome = cut(after).map(|records| acknowledged += records);
            trials.count(outcome.map_err(|error| format!("cut {number} after {after:?}: {error}")));
        }
    }
    trials.finish(format!(
        "ext4 cut off at random moments: {acknowledged} records acknowledged before the cuts"
    ));
}
