//! T3 and T5 of `cargo xtask reliability`: damaged bytes, and many processes that want one run.
//!
//! Without that command each test makes a few trials, so that it is seen to work.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use pipeline_checkpoint::FileStore;
use pipeline_core::conformance::store::{effect, one_of_each};
use pipeline_core::conformance::trials::{Random, Trials, is_asked};
use pipeline_core::fact::{Fact, Record};
use pipeline_core::store::{CheckpointStore, StoreError};
use serde_json::json;

use crate::support::{Temporary, block_on, child, ended, state_of_child, write};

/// A run, its journal, and what was acknowledged.
struct Whole {
    temporary: Temporary,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// What a journal may be read as.
enum Allowed {
    /// The records before the one that the last good line is.
    Prefix(usize),
    /// That, or a refusal that names the file and a place not behind this byte.
    PrefixOrDamage { at: usize },
}

impl Whole {
    fn new(facts: Vec<Fact>) -> Self {
        let temporary = Temporary::new();
        let mut log = block_on(temporary.create("run", 5));
        let records = block_on(write(&mut *log, facts));
        drop(log);
        let bytes = fs::read(temporary.file("run", "journal.log")).unwrap();
        Self { temporary, bytes, records }
    }

    /// Byte offsets behind each line: of the head, then of each record.
    fn ends(&self) -> Vec<usize> {
        (1..=self.bytes.len()).filter(|at| self.bytes[at - 1] == b'\n').collect()
    }

    /// Reads those bytes in place of the journal. What is read must be the first records, unchanged.
    fn judge(&self, bytes: &[u8], allowed: &Allowed, what: &str) -> Result<(), String> {
        let path = self.temporary.file("run", "journal.log");
        // Not emptied first: file systems flush a file that was, and there are thousands of trials.
        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64)).unwrap();
        let found = match (block_on(self.temporary.store.read("run")), allowed) {
            (Ok(read), _) => read.records,
            (Err(StoreError::Damaged { path: told, offset, .. }), Allowed::PrefixOrDamage { at })
                if told == path && offset <= *at as u64 =>
            {
                return Ok(());
            }
            (Err(error), _) => return Err(format!("{what}: {error}")),
        };
        if found != self.records[..found.len().min(self.records.len())] {
            return Err(format!("{what}: a changed record was accepted"));
        }
        let is_whole = found.len() == self.records.len();
        match allowed {
            Allowed::Prefix(wanted) if found.len() != *wanted => {
                Err(format!("{what}: {} records where {wanted} are whole", found.len()))
            }
            Allowed::PrefixOrDamage { .. } if is_whole && bytes != self.bytes => {
                Err(format!("{what}: accepted without a word"))
            }
            _ => Ok(()),
        }
    }
}

/// So many small facts that the journal has about `bytes` bytes.
fn facts_of(bytes: usize, random: &mut Random) -> Vec<Fact> {
    let mut all = one_of_each("run").split_off(8);
    let mut size = 0;
    while size < bytes {
        let pad = "z".repeat(random.below(bytes / 20 + 1));
        size += pad.len() + 150;
        all.push(effect(json!({"n": random.below(1_000_000), "pad": pad})));
    }
    all.push(ended());
    all
}

/// Naive: a line that can be read is believed.
#[test]
fn t03_no_damaged_byte_is_accepted() {
    let trials = Trials::of("T3", 200);
    let mut random = Random::new(trials.seed());
    let small = Whole::new(facts_of(if is_asked() { 3_000 } else { 600 }, &mut random));
    let ends = small.ends();
    let whole_before = |cut: usize| ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
    let counted = |name: &str| (name.to_owned(), trials.made());
    let mut parts = Vec::new();
    // Every length that a power cut can leave, and the same with zeros behind it.
    for cut in ends[0]..=small.bytes.len() {
        trials.make(|| {
            small.judge(&small.bytes[..cut], &Allowed::Prefix(whole_before(cut)), &format!("cut at {cut}"))
        });
        let mut zeros = small.bytes[..cut].to_vec();
        zeros.resize(cut + 1 + random.below(5_000), 0);
        let whole = whole_before(cut);
        trials.make(|| small.judge(&zeros, &Allowed::Prefix(whole), &format!("zeros from {cut} on")));
    }
    parts.push(counted("cuts"));
    // One bit of every byte; all eight where time is no matter.
    let bits: &[usize] = if trials.wanted() >= 10_000 { &[0, 1, 2, 3, 4, 5, 6, 7] } else { &[0] };
    for at in 0..small.bytes.len() {
        if !trials.go_on() {
            break;
        }
        for other in bits {
            let bit = (random.below(8) + other) % 8;
            let mut changed = small.bytes.clone();
            changed[at] ^= 1 << bit;
            trials.make(|| {
                small.judge(&changed, &Allowed::PrefixOrDamage { at }, &format!("bit {bit} of byte {at}"))
            });
        }
    }
    parts.push(counted("flips"));
    // Two records change places, or an old one stands there again.
    for one in 0..ends.len() - 1 {
        for other in 0..ends.len() - 1 {
            let line = |n: usize| &small.bytes[ends[n]..ends[n + 1]];
            let mut lines: Vec<&[u8]> = (0..ends.len() - 1).map(line).collect();
            let at = ends[one.min(other)];
            lines.swap(one, other);
            if one != other {
                let swapped = [&small.bytes[..ends[0]], &lines.concat()].concat();
                trials.make(|| {
                    small.judge(
                        &swapped,
                        &Allowed::PrefixOrDamage { at },
                        &format!("{one} and {other} swapped"),
                    )
                });
            }
            let mut lines: Vec<&[u8]> = (0..ends.len() - 1).map(line).collect();
            lines.insert(one + 1, line(other));
            let replayed = [&small.bytes[..ends[0]], &lines.concat()].concat();
            let allowed = Allowed::PrefixOrDamage { at: ends[(one + 2).min(ends.len() - 1)] };
            trials.make(|| small.judge(&replayed, &allowed, &format!("{other} again behind {one}")));
        }
    }
    parts.push(counted("swaps and replays"));
    // A large journal, damaged by chance: cut, flipped, and both.
    let large = Whole::new(facts_of(if trials.wanted() > 500 { 4_000_000 } else { 300_000 }, &mut random));
    for trial in 0..trials.wanted() {
        if !trials.go_on() {
            break;
        }
        let (at, cut) = (random.below(large.bytes.len()), random.below(large.bytes.len()));
        let mut changed = large.bytes.clone();
        changed[at] ^= 1 << random.below(8);
        if random.percent(50) {
            changed.truncate(cut);
        }
        trials.make(|| {
            large.judge(&changed, &Allowed::PrefixOrDamage { at }, &format!("large journal, trial {trial}"))
        });
    }
    parts.push(counted("compound"));
    truncated_blobs(&trials);
    parts.push(counted("cuts of a blob"));
    let mut before = 0;
    let told =
        parts.iter().map(|(name, made)| format!("{} {name}", made - std::mem::replace(&mut before, *made)));
    let told = told.collect::<Vec<_>>().join(", ");
    trials.finish(format!("{told}: none accepted, each refusal names file and place"));
}

/// A value in a file of its own, cut short.
fn truncated_blobs(trials: &Trials) {
    let whole = Whole::new(vec![effect(json!("x".repeat(70_000)))]);
    let blobs = whole.temporary.file("run", "blobs");
    let blob = fs::read_dir(blobs).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&blob).unwrap();
    for cut in (0..bytes.len()).step_by(997) {
        fs::write(&blob, &bytes[..cut]).unwrap();
        trials.make(|| match block_on(whole.temporary.store.open("run")).map(drop) {
            Err(StoreError::Damaged { path, .. }) if path == blob => Ok(()),
            other => Err(format!("blob cut at {cut}: {other:?}")),
        });
    }
}

/// So many rounds are about one run. Its journal grows with each, and how long a long one takes to be read is not in question here.
const ROUNDS: u64 = 100;

/// How long an owner keeps a run in these races.
const KEPT: Duration = Duration::from_millis(3);

/// Two or eight processes, started together or one after the other.
#[test]
fn t05_of_all_processes_that_want_a_run_one_has_it_at_a_time() {
    if let Some(state) = state_of_child() {
        return want(&FileStore::new(state));
    }
    let trials = Trials::of("T5", 12);
    let mut random = Random::new(trials.seed());
    let mut temporary = Temporary::new();
    let (mut owners, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..trials.wanted() {
        if !trials.go_on() {
            break;
        }
        if round % ROUNDS == 0 {
            temporary = Temporary::new();
            drop(block_on(temporary.create("run", 1)));
        }
        let processes: Vec<Child> = (0..[2, 8][random.below(2)])
            .map(|_| {
                if random.percent(30) {
                    std::thread::sleep(Duration::from_millis(random.draw() % 8));
                }
                child(T5, &temporary).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let pids: Vec<u32> = processes.iter().map(Child::id).collect();
        let said: Vec<Output> =
            processes.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        trials.make(|| {
            let mut had = 0;
            for output in &said {
                let text = String::from_utf8_lossy(&output.stdout);
                let held =
                    text.lines().find_map(|line| line.split("held by ").nth(1)?.trim().parse::<u32>().ok());
                match held {
                    // Its owner may have gone before its number was read.
                    Some(pid) if pid == 0 || pids.contains(&pid) => refused += 1,
                    Some(pid) => {
                        return Err(format!("round {round}: held by {pid}, which is none of {pids:?}"));
                    }
                    None if text.contains("had it") => had += 1,
                    None => {
                        let errors = String::from_utf8_lossy(&output.stderr);
                        return Err(format!("round {round}: {text}{errors}"));
                    }
                }
            }
            owners += had;
            if had == 0 { Err(format!("round {round}: nobody got it")) } else { whole(&temporary, round) }
        });
        // And when its owner is killed, the next one has it at once.
        let took = taken_over(&temporary);
        slowest = slowest.max(took);
        trials.make(|| {
            let is_soon = took < Duration::from_secs(1);
            if is_soon { Ok(()) } else { Err(format!("round {round}: taken over after {took:?}")) }
        });
    }
    trials.finish(format!(
        "{owners} owners one after the other, {refused} refusals; taken over at most {} ms after a kill",
        slowest.as_millis()
    ));
}

const T5: &str = "reliability::t05_of_all_processes_that_want_a_run_one_has_it_at_a_time";

/// What each process does: take the run, write into it for a moment, and say how it went.
fn want(store: &FileStore) {
    let mut out = std::io::stdout();
    match block_on(store.open("run")) {
        Ok(mut opened) => {
            for _ in 0..3 {
                block_on(write(&mut *opened.log, vec![effect(json!(std::process::id()))]));
                std::thread::sleep(KEPT);
            }
            writeln!(out, "had it").unwrap();
            // The one that is to be killed is told so by having its input open.
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
        }
        Err(StoreError::Held { pid, .. }) => writeln!(out, "held by {pid}").unwrap(),
        Err(error) => writeln!(out, "{error}").unwrap(),
    }
}

/// The journal is whole, and records of one owner stand together.
fn whole(temporary: &Temporary, round: u64) -> Result<(), String> {
    let read = block_on(temporary.store.read("run")).map_err(|error| format!("round {round}: {error}"))?;
    let owners: Vec<String> = read
        .records
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::EffectDone { value, .. } => Some(value.json().to_string()),
            _ => None,
        })
        .collect();
    let runs = owners.chunk_by(|a, b| a == b);
    // Each writes three; one that was killed later wrote three as well.
    match runs.into_iter().find(|run| run.len() % 3 != 0) {
        None => Ok(()),
        Some(run) => Err(format!("round {round}: {} records of {} stand together", run.len(), run[0])),
    }
}

/// How long it takes until the run can be had after its owner was killed.
fn taken_over(temporary: &Temporary) -> Duration {
    let mut owner = child(T5, temporary).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let _has_it = lines.find(|line| line.contains("had it") || line.contains("held by"));
    owner.kill().unwrap();
    let begun = tokio::time::Instant::now();
    while block_on(temporary.store.open("run")).is_err() {
        if begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    owner.wait().unwrap();
    took
}
