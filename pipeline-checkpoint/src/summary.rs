//! A run in one line, without reading all of it.
//!
//! Owns what a list tells: the manifest, the lock, and a status from the end of the journal. Verifies no chain: a list must
//! also show what is damaged. Must not know how runs are taken over.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::store::{Manifest, RunSummary};
use pipeline_core::value::Value;

use crate::line;
use crate::lock;
use crate::manifest;
use crate::scan::Entry;

/// Name of the journal in a run's directory.
pub(crate) const JOURNAL: &str = "journal.log";

/// How many bytes from the end are looked at. A status that stands before them is old: the run has gone on since.
const WINDOW: u64 = 256 * 1024;

/// What the facts say about the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It goes on, or was cut off.
    Open,
    /// It rests, and can go on.
    Paused(RunStatus),
    /// It ended for good.
    Ended(RunStatus),
}

impl Told {
    /// What one fact says, if it is about the whole run.
    pub(crate) fn by(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::RunStarted { .. } | Fact::RunResumed { .. } => Some(Self::Open),
            Fact::RunPaused { reason } => Some(Self::Paused(reason.status())),
            Fact::RunEnded { status, .. } => Some(Self::Ended(*status)),
            Fact::StepSkipped { .. }
            | Fact::AttemptStarted { .. }
            | Fact::EffectDone { .. }
            | Fact::SpendReserved { .. }
            | Fact::AttemptEnded { .. }
            | Fact::TimerFired { .. } => None,
        }
    }

    /// The status to show, given whether a process holds the run.
    pub(crate) fn status(self, is_held: bool) -> RunStatus {
        match self {
            Self::Ended(status) | Self::Paused(status) => status,
            Self::Open if is_held => RunStatus::Running,
            Self::Open => RunStatus::Interrupted,
        }
    }
}

/// One line about the run in `dir`; `None` when there is not enough for a run: it is still being created, or its creator died.
pub(crate) fn summarise(run: &str, dir: &Path) -> Option<RunSummary> {
    let pid = lock::holder(dir);
    if !dir.join(JOURNAL).exists() && (pid.is_some() || !manifest::exists(dir)) {
        return None;
    }
    // A journal that cannot be read tells nothing, and the run is listed all the same: opening it says what is wrong.
    let status = told(dir).unwrap_or(Told::Open).status(pid.is_some());
    Some(match manifest::glance(dir) {
        Ok(known) => from_manifest(run, known, status, pid),
        Err(_) => from_fragments(run, &manifest::fragments(dir), status, pid),
    })
}

fn from_manifest(run: &str, manifest: Manifest, status: RunStatus, pid: Option<u32>) -> RunSummary {
    RunSummary {
        run_id: run.to_owned(),
        workflow: manifest.workflow,
        status,
        started_at: manifest.created_at,
        mode: manifest.mode,
        source_path: manifest.source_path,
        pid,
    }
}

fn from_fragments(run: &str, known: &Value, status: RunStatus, pid: Option<u32>) -> RunSummary {
    let text = |name: &str| known.get(name).and_then(Value::as_str).unwrap_or("(unreadable)").to_owned();
    RunSummary {
        run_id: run.to_owned(),
        workflow: text("workflow"),
        status,
        started_at: text("created_at").parse().ok().or_else(|| created_at(run)).unwrap_or_default(),
        mode: text("mode"),
        source_path: text("source_path"),
        pid,
    }
}

/// The time inside a run id.
fn created_at(run: &str) -> Option<Timestamp> {
    let (seconds, nanos) = uuid::Uuid::try_parse(run).ok()?.get_timestamp()?.to_unix();
    let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
    millis.checked_add(i64::from(nanos / 1_000_000)).map(Timestamp)
}

/// What the last facts in the journal say about the run.
pub(crate) fn told(dir: &Path) -> io::Result<Told> {
    let mut file = File::open(dir.join(JOURNAL))?;
    let start = file.metadata()?.len().saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(WINDOW).read_to_end(&mut tail)?;
    // An unterminated last line was never acknowledged, however whole it looks: opening the run drops it.
    tail.truncate(tail.iter().rposition(|byte| *byte == b'\n').unwrap_or(0));
    // The head, a line that the window cuts and a torn one do not decode, and say nothing.
    let lines = tail.split(|byte| *byte == b'\n').rev();
    let mut facts =
        lines.filter_map(|text| serde_json::from_slice::<Entry>(line::decode(text).ok()?.payload).ok());
    Ok(facts.find_map(|entry| Told::by(&entry.record.fact)).unwrap_or(Told::Open))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_directory_without_a_journal_is_a_run_once_it_has_a_manifest_and_nobody_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(summarise("r", dir.path()).is_none());
        manifest::write(dir.path(), &pipeline_core::conformance::store::manifest("r", 1)).unwrap();
        let listed = summarise("r", dir.path()).unwrap();
        assert_eq!((listed.workflow.as_str(), listed.status), ("review", RunStatus::Interrupted));
        let lock = lock::RunLock::try_acquire(dir.path()).unwrap();
        assert!(summarise("r", dir.path()).is_none(), "somebody is making it");
        drop(lock);
    }

    #[test]
    fn the_time_of_a_run_is_in_its_id() {
        let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_700_000_000, 123_000_000));
        assert_eq!(created_at(&id.to_string()), Some(Timestamp(1_700_000_000_123)));
        assert_eq!(created_at("review"), None);
    }

    #[test]
    fn a_last_line_without_an_end_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| std::fs::write(dir.path().join(JOURNAL), bytes).unwrap();
        let fact =
            |text: &str| format!(r#"{{"index":0,"at":"2023-11-14T22:13:20.000Z","elapsed_ms":1,{text}}}"#);
        let mut bytes = Vec::new();
        let paused = fact(r#""fact":"RunPaused","reason":"interrupted""#);
        let crc = line::encode(&mut bytes, 0, 0, 1, paused.as_bytes()).unwrap();
        write(&bytes);
        assert!(matches!(told(dir.path()).unwrap(), Told::Paused(_)));
        let ended = fact(r#""fact":"RunEnded","status":"ok","outputs":null"#);
        line::encode(&mut bytes, crc, 1, 1, ended.as_bytes()).unwrap();
        write(&bytes);
        assert!(matches!(told(dir.path()).unwrap(), Told::Ended(_)));
        write(&bytes[..bytes.len() - 1]);
        assert!(matches!(told(dir.path()).unwrap(), Told::Paused(_)), "however whole it looks");
    }
}
