//! T9 of `cargo xtask reliability`: the real schedule, engine and journal on a disk in memory and on time that nobody waits for.
//!
//! Owns the trials: a seed gives a graph of steps, how long each takes and how often it fails or hangs, and where the power is
//! cut or the run is stopped. Then the run goes on until it ends. A seed is all that is needed to see a failure again.
//! Must not know how the engine works: it sees what its steps, its observer and its disk see. Next: `disk.rs`, `world.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod disk;
mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use pipeline_core::conformance::trials::{Random, Trials, is_asked};
use pipeline_core::value::Hash;

use disk::Disk;
use world::{End, STEPS, Shape, World};

/// One in so many seeds is run twice, and must leave the same bytes.
const TWICE: u64 = 100;

/// Seeds that share a graph: to compile one takes as long as some runs.
const SHARED: u64 = 32;

/// What the trials met.
#[derive(Default)]
struct Met {
    attempts: AtomicU64,
    cuts: AtomicU64,
    stops: AtomicU64,
    limits: AtomicU64,
    twice: AtomicU64,
    virtual_ms: AtomicU64,
}

/// Everything that happened in a run: what its steps saw, when, and what is on the disk at the end.
type History = Vec<(u64, String)>;

/// A run from its beginning to its end, through cuts and stops.
fn live_through(seed: u64, shape: &Shape, met: &Met, lock: &std::path::Path) -> Result<History, String> {
    let mut random = Random::new(seed);
    let world = World::new(shape, &mut random);
    let disk = Disk::new(random.draw());
    // Some runs meet nothing, most are cut off once, some again while they recover.
    let mut cuts = [0, 1, 1, 1, 2, 3][random.below(6)];
    // A new owner, as on a machine of its own.
    let _ = std::fs::remove_file(lock.join("run.lock"));
    std::fs::write(lock.join("run.lock"), "").map_err(|e| e.to_string())?;
    // Some may begin only so many attempts, until somebody has seen that twice.
    let mut limit = random.percent(20).then(|| 1 + random.draw() % 60);
    let mut limited = 0;
    let mut history = History::new();
    for life in 0.. {
        if life > 10 {
            return Err("it does not end".to_owned());
        }
        let is_cut = cuts > 0;
        cuts -= i32::from(is_cut);
        disk.power(is_cut.then(|| 1 + random.draw() % 90));
        // Its time may run out as well: somebody presses Ctrl-C.
        let stop_at = (life < 3 && random.percent(15)).then(|| random.draw() % 2_000);
        let lived = world.live(&disk, lock, stop_at, limit)?;
        met.virtual_ms.fetch_add(lived.ms, Ordering::Relaxed);
        history.extend(lived.trace);
        history.push((lived.ms, format!("end of life {life}")));
        match lived.end {
            End::Cut => {
                met.cuts.fetch_add(1, Ordering::Relaxed);
                disk.cut(&mut random);
            }
            End::Stopped => drop(met.stops.fetch_add(1, Ordering::Relaxed)),
            End::Limited => {
                met.limits.fetch_add(1, Ordering::Relaxed);
                limited += 1;
            }
            End::Done(outputs) => {
                let expected = shape.outputs();
                if outputs != expected {
                    return Err(format!("the outputs are {outputs} and not {expected}"));
                }
                break;
            }
        }
        let begun: BTreeSet<_> = disk.records()?.iter().filter_map(|r| world::begun(&r.fact)).collect();
        if limit.is_some_and(|most| begun.len() as u64 > most) {
            return Err(format!("{} attempts were begun, and {limit:?} may be", begun.len()));
        }
        limit = limit.filter(|_| limited < 2);
    }
    let mut ended = BTreeSet::new();
    for record in disk.records()? {
        if let Some((path, turn)) = world::ended(&record.fact)
            && !ended.insert((path.clone(), turn))
        {
            return Err(format!("{path}#{turn} ended twice"));
        }
    }
    met.attempts.fetch_add(ended.len() as u64, Ordering::Relaxed);
    history.push((0, format!("the journal is {}", Hash::of_bytes(&disk.journal()))));
    Ok(history)
}

fn trial(seed: u64, shape: &Shape, met: &Met, lock: &std::path::Path) -> Result<(), String> {
    let again = || format!("seed {seed} (again: RELIABILITY_SEED={seed} RELIABILITY_TRIALS=1)");
    let first = live_through(seed, shape, met, lock).map_err(|error| format!("{}: {error}", again()))?;
    if seed.is_multiple_of(TWICE) {
        met.twice.fetch_add(1, Ordering::Relaxed);
        let second =
            live_through(seed, shape, &Met::default(), lock).map_err(|e| format!("{}: {e}", again()))?;
        if let Some(at) = (0..first.len().max(second.len())).find(|at| first.get(*at) != second.get(*at)) {
            let (one, other) = (first.get(at), second.get(at));
            return Err(format!("{}: run again, it differs: {one:?} was {other:?}", again()));
        }
    }
    Ok(())
}

/// Naive: a step starts before what it needs has ended; what is told is flushed a moment later; what ended before a cut runs
/// again after it; every resume begins what the limit had stopped.
#[test]
fn t09_any_graph_through_any_cuts_and_stops_ends_the_same() {
    let (trials, met) = (Trials::of("T9", 60), Met::default());
    let (first, last) = (trials.seed(), trials.seed() + trials.wanted());
    let next = AtomicU64::new(first / SHARED);
    let lanes =
        if is_asked() { std::thread::available_parallelism().map_or(2, std::num::NonZero::get) } else { 2 };
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let lock = tempfile::tempdir().unwrap();
                loop {
                    let group = next.fetch_add(1, Ordering::Relaxed);
                    let seeds = (group * SHARED).max(first)..((group + 1) * SHARED).min(last);
                    if group * SHARED >= last || !trials.go_on() {
                        break;
                    }
                    let shape = Shape::new(group);
                    seeds.for_each(|seed| trials.count(trial(seed, &shape, &met, lock.path())));
                }
            });
        }
    });
    let hours = met.virtual_ms.into_inner() / 3_600_000;
    trials.finish(format!(
        "{} attempts of graphs of {STEPS} steps, {} power cuts, {} stops, {} of them at a limit, {hours} hours of virtual time; {} seeds were run twice, to the same bytes",
        met.attempts.into_inner(),
        met.cuts.into_inner(),
        met.stops.into_inner() + met.limits.load(Ordering::Relaxed),
        met.limits.into_inner(),
        met.twice.into_inner(),
    ));
}
