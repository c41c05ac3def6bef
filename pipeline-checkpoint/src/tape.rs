//! Recordings of runs.
//!
//! Owns [`FileTape`]: while recording it keeps the request and the result of every effect, secrets taken out, and when each fact
//! was made; while replaying it answers from them and nothing else, and a request that is not the recorded one is told by its
//! first difference.
//! Must not know what effects do. The format is described in `docs/tape-format.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pipeline_core::clock::Timestamp;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Record;
use pipeline_core::redact::Redactor;
use pipeline_core::schedule::LastingVariables;
use pipeline_core::store::{Session, StoreError};
use pipeline_core::tape::{Came, Moment, Played, Tape, TapedEffect};
use pipeline_core::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::blob;
use crate::chain::{self, Chain, ChainEnd};
use crate::difference;
use crate::disk::{self, Locked};
use crate::line::Kind;
use crate::session_file::refused;

/// Version of tapes that this program writes, and the newest that it reads.
pub const TAPE_FORMAT: u32 = 2;

const KIND: Kind = Kind { magic: "pipeline-tape", format: TAPE_FORMAT };
const FILE: &str = "tape.log";

/// The run that a tape was recorded of: what a replay must have in common with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapedRun {
    /// Its id: a run that is resumed goes on recording.
    pub run_id: String,
    /// The workflow's name.
    pub workflow: String,
    /// When it started.
    pub started_at: Timestamp,
    /// What it invented followed from it.
    pub seed: u64,
    /// `live`, `mock`, `mixed`.
    pub mode: String,
    /// The variables of scope `session` that it began with.
    #[serde(default, skip_serializing_if = "LastingVariables::is_empty")]
    pub lasting: LastingVariables,
}

/// The first line's JSON.
#[derive(Serialize, Deserialize)]
struct Head {
    program: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Run(TapedRun),
    Effect(Effect),
    /// Since format 2.
    Fact(Moment),
    /// What was said before the run, in a session that it took up; since format 2.
    Session(Session),
}

#[derive(Serialize, Deserialize)]
struct Effect {
    path: String,
    turn: u32,
    ordinal: u32,
    name: String,
    request: Value,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok(Value),
    Error(StepError),
    /// Its attempt was stopped or timed out before it ended; since format 2.
    CutOff(bool),
}

/// A tape in a directory, which records or replays.
pub struct FileTape {
    redactor: Redactor,
    mode: Mode,
}

enum Mode {
    Record(Mutex<Writer>),
    Replay(Recorded),
}

struct Writer {
    path: PathBuf,
    /// Its lock keeps other recorders out.
    file: Locked,
    end: Option<ChainEnd>,
    /// Moments are kept: not on a tape that was begun without them.
    keeps_moments: bool,
    /// The run, and the sessions that are on tape.
    run_id: String,
    sessions: HashSet<String>,
    /// The first error of writing.
    poison: Option<String>,
}

/// What a tape has. What was recorded last counts.
#[derive(Default)]
struct Recorded {
    /// By step path and logical attempt, then by ordinal.
    effects: HashMap<(String, u32), BTreeMap<u32, Effect>>,
    /// By the record's position.
    moments: BTreeMap<u64, Moment>,
    /// By name.
    sessions: HashMap<String, Session>,
}

impl FileTape {
    /// Records into `dir`, which is made. A tape that is there must be of the same run: then it goes on.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written, is damaged, is recorded into by another process, or is of another run.
    pub fn record(dir: &Path, run: &TapedRun, redactor: Redactor) -> Result<Self, StoreError> {
        disk::create_shared_dir(dir).map_err(|error| disk::directory_error(dir, &error))?;
        let path = dir.join(FILE);
        let failed = |error: &io::Error| disk::write_error(&path, error);
        let refuse = |message: String| StoreError::Write { path: path.clone(), message };
        let file = open(&path).map_err(|error| failed(&error))?;
        let file = Locked::alone(file).map_err(|_| refuse("another process records into it".to_owned()))?;
        let bytes = disk::read(&path)?.unwrap_or_default();
        let (mut before, mut has_moments, mut sessions) = (None, false, HashSet::new());
        let chain = read(&path, &bytes, |entry| match entry {
            Entry::Run(run) => {
                before.get_or_insert(run);
            }
            Entry::Fact(_) => has_moments = true,
            Entry::Session(session) => drop(sessions.insert(session.name)),
            Entry::Effect(_) => {}
        })?;
        if let Some(before) = before.filter(|before| before.run_id != run.run_id) {
            return Err(refuse(format!(
                "it has the tape of run {} already; record into another directory, or remove that one",
                before.run_id
            )));
        }
        let end = chain.as_ref().map(|chain| chain.end);
        // What a crash left half written is no effect.
        file.set_len(end.map_or(0, |end| end.length)).map_err(|error| failed(&error))?;
        let keeps_moments = end.is_none() || has_moments;
        let run_id = run.run_id.clone();
        let mut writer = Writer { path, file, end, keeps_moments, run_id, sessions, poison: None };
        if end.is_none() {
            writer.write(&Entry::Run(run.clone()))?;
            disk::sync_dir(dir).map_err(|error| disk::directory_error(dir, &error))?;
        }
        Ok(Self { redactor, mode: Mode::Record(Mutex::new(writer)) })
    }

    /// Replays what is in `dir`. `redactor` keeps secrets out of what a miss tells.
    ///
    /// # Errors
    /// [`StoreError`] when there is no tape, or it is damaged.
    pub fn replay(dir: &Path, redactor: Redactor) -> Result<(Self, TapedRun), StoreError> {
        let path = dir.join(FILE);
        let Some(bytes) = disk::read(&path)? else {
            return Err(missing(&path, "there is no tape"));
        };
        Self::of_bytes(&path, &bytes, redactor)
    }

    /// Replays `bytes`, which were found at `path`.
    pub(crate) fn of_bytes(
        path: &Path,
        bytes: &[u8],
        redactor: Redactor,
    ) -> Result<(Self, TapedRun), StoreError> {
        let (mut run, mut recorded) = (None, Recorded::default());
        read(path, bytes, |entry| match entry {
            Entry::Run(first) => {
                run.get_or_insert(first);
            }
            Entry::Effect(effect) => {
                let attempt = recorded.effects.entry((effect.path.clone(), effect.turn)).or_default();
                attempt.insert(effect.ordinal, effect);
            }
            Entry::Fact(moment) => recorded.put(moment),
            Entry::Session(session) => {
                recorded.sessions.insert(session.name.clone(), session);
            }
        })?;
        let run = run.ok_or_else(|| missing(path, "the tape is empty"))?;
        Ok((Self { redactor, mode: Mode::Replay(recorded) }, run))
    }

    /// What was said in a session before the recorded run.
    pub(crate) fn session(&self, name: &str) -> Option<Session> {
        match &self.mode {
            Mode::Replay(recorded) => recorded.sessions.get(name).cloned(),
            Mode::Record(_) => None,
        }
    }

    /// Keeps what was said in a session before this run, once.
    ///
    /// # Errors
    /// `Environment` when it cannot be written.
    pub(crate) fn keep_session(&self, session: &Session) -> Result<(), StepError> {
        let Mode::Record(writer) = &self.mode else { return Ok(()) };
        let mut writer = writer.lock();
        let own = format!("{}/", writer.run_id);
        let turns: Vec<_> =
            session.turns.iter().filter(|turn| !turn.key.starts_with(&own)).cloned().collect();
        if turns.is_empty() || !writer.keeps_moments || writer.sessions.contains(&session.name) {
            return Ok(());
        }
        let session = Session { turns, ..session.clone() };
        let failed = |error: serde_json::Error| StepError::new(ErrorKind::Environment, error.to_string());
        let session = self.redactor.value(&serde_json::to_value(session).map_err(failed)?);
        let session: Session = serde_json::from_value(session).map_err(failed)?;
        writer.sessions.insert(session.name.clone());
        writer.write(&Entry::Session(session)).map_err(|error| refused(&error))
    }
}

impl Tape for FileTape {
    fn play(&self, effect: &TapedEffect<'_>) -> Played {
        match &self.mode {
            Mode::Record(_) => Played::Nothing,
            Mode::Replay(recorded) => recorded.find(effect, &self.redactor),
        }
    }

    fn record(&self, effect: &TapedEffect<'_>, came: Came<'_>) -> Result<(), StepError> {
        let Mode::Record(writer) = &self.mode else { return Ok(()) };
        let result = match came {
            Came::Result(result) => Some(result),
            Came::CutOff if writer.lock().keeps_moments => None,
            Came::CutOff => return Ok(()),
        };
        let value = result.and_then(|result| result.as_ref().ok());
        let details = result.and_then(|result| result.as_ref().err()).map(|error| &error.details);
        let values = [Some(effect.request), value, details];
        if !values.into_iter().flatten().all(|value| blob::is_within(value, blob::MAX_DEPTH - 8)) {
            let message =
                format!("effect `{}` of `{}` is nested too deep to be taped", effect.name, effect.key.path);
            return Err(StepError::new(ErrorKind::Environment, message).help("run it without --record"));
        }
        let result = match result {
            Some(Ok(value)) => Outcome::Ok(self.redactor.value(value)),
            Some(Err(error)) => Outcome::Error(self.redactor.error(error.clone())),
            None => Outcome::CutOff(true),
        };
        let entry = Entry::Effect(Effect {
            path: effect.key.path.as_str().to_owned(),
            turn: effect.key.turn,
            ordinal: effect.ordinal,
            name: effect.name.to_owned(),
            request: self.redactor.value(effect.request),
            result,
        });
        writer.lock().write(&entry).map_err(|error| refused(&error))
    }

    fn made(&self, record: &Record) -> Result<(), StoreError> {
        let Mode::Record(writer) = &self.mode else { return Ok(()) };
        let mut writer = writer.lock();
        if writer.keeps_moments { writer.write(&Entry::Fact(Moment::of(record))) } else { Ok(()) }
    }

    fn moments(&self) -> Vec<Moment> {
        match &self.mode {
            Mode::Replay(recorded) => recorded.moments.values().cloned().collect(),
            Mode::Record(_) => Vec::new(),
        }
    }
}

impl Writer {
    /// Appends an entry. It reaches the disk when the system sees fit: a tape is made again, where a journal cannot be.
    fn write(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let refuse = |message: String| StoreError::Write { path: self.path.clone(), message };
        if let Some(first) = &self.poison {
            return Err(refuse(format!("an earlier write failed ({first}), so nothing more is taped")));
        }
        let payload = serde_json::to_vec(entry).map_err(|error| refuse(error.to_string()))?;
        let head = Head { program: env!("CARGO_PKG_VERSION").to_owned() };
        let (bytes, end) = chain::extend(KIND, &head, self.end, &payload).map_err(refuse)?;
        if let Err(error) = self.file.write_all(&bytes) {
            self.poison = Some(error.to_string());
            return Err(disk::write_error(&self.path, &error));
        }
        self.end = Some(end);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A tape that is cut by a power failure is a shorter tape.
        let _ = self.file.sync_data();
    }
}

impl Recorded {
    /// What stood at this place and after it was lost in a crash: the run went on without.
    fn put(&mut self, moment: Moment) {
        self.moments.split_off(&moment.index);
        self.moments.insert(moment.index, moment);
    }

    fn find(&self, effect: &TapedEffect<'_>, redactor: &Redactor) -> Played {
        let (path, turn) = (effect.key.path.as_str(), effect.key.turn);
        let what =
            format!("effect `{}` of step `{path}` (attempt {turn}, place {})", effect.name, effect.ordinal);
        let attempt = self.effects.get(&(path.to_owned(), turn));
        let Some(found) = attempt.and_then(|effects| effects.get(&effect.ordinal)) else {
            let help = match (attempt, self.effects.keys().find(|(other, _)| other == path)) {
                (Some(effects), _) => {
                    format!(
                        "the tape has {} of this attempt: the step does more than it did",
                        count(effects.len())
                    )
                }
                (None, Some(_)) => {
                    "the tape has other attempts of this step: it was retried differently".to_owned()
                }
                (None, None) => {
                    "the tape has no effect of this step: it is new, or has another name".to_owned()
                }
            };
            return Played::Missing(Box::new(miss(format!("the tape has no {what}"), help, Value::Null)));
        };
        if found.name != effect.name {
            let message = format!("the tape has effect `{}` in the place of {what}", found.name);
            let help = "the step does other things than it did".to_owned();
            let details = json!({"expected": found.name, "got": effect.name});
            return Played::Differs(Box::new(miss(message, help, details)));
        }
        match difference::first(&found.request, &redactor.value(effect.request)) {
            None => match &found.result {
                Outcome::Ok(value) => Played::Result(Ok(value.clone())),
                Outcome::Error(error) => Played::Result(Err(error.clone())),
                Outcome::CutOff(_) => {
                    let help = "the recorded attempt was stopped before that".to_owned();
                    let message = format!("the tape has no result of {what}");
                    Played::Missing(Box::new(miss(message, help, Value::Null)))
                }
            },
            Some(differs) => {
                let place = if differs.path.is_empty() { "as a whole" } else { differs.path.as_str() };
                let message = format!(
                    "the request of {what} is not the recorded one at {place}: the tape has {}, and now it is {}",
                    differs.expected, differs.got
                );
                let help = "undo the change".to_owned();
                let details = json!({"path": differs.path, "expected": differs.expected, "got": differs.got});
                Played::Differs(Box::new(miss(message, help, details)))
            }
        }
    }
}

fn missing(path: &Path, message: &str) -> StoreError {
    StoreError::Directory { path: path.to_owned(), message: message.to_owned() }
}

fn count(effects: usize) -> String {
    if effects == 1 { "one effect".to_owned() } else { format!("{effects} effects") }
}

fn miss(message: String, help: String, details: Value) -> StepError {
    StepError::new(ErrorKind::Environment, message)
        .help(format!("{help}; or record the run again with --record"))
        .details(details)
}

fn read(path: &Path, bytes: &[u8], mut each: impl FnMut(Entry)) -> Result<Option<Chain<Head>>, StoreError> {
    chain::read(KIND, path, bytes, |payload| {
        let value = blob::parse(payload)?;
        each(serde_json::from_value(value).map_err(|error| error.to_string())?);
        Ok(())
    })
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::conformance::session::turn;
    use pipeline_core::path::{OpKey, OpRole, StepPath};

    use super::*;

    /// A tape that records a run into an empty folder.
    pub fn recorder(dir: &Path) -> FileTape {
        let run = TapedRun {
            run_id: "r".to_owned(),
            workflow: "w".to_owned(),
            started_at: Timestamp(1),
            seed: 1,
            mode: "mock".to_owned(),
            lasting: LastingVariables::default(),
        };
        FileTape::record(dir, &run, Redactor::default()).unwrap()
    }

    fn session(name: &str, keys: &[&str]) -> Session {
        let turns = keys.iter().map(|key| turn(key)).collect();
        Session { name: name.to_owned(), turns, ..Session::default() }
    }

    #[test]
    fn a_session_is_kept_once_and_without_what_the_run_itself_said() {
        let dir = tempfile::tempdir().unwrap();
        let tape = recorder(dir.path());
        tape.keep_session(&session("own", &["r/a/1"])).unwrap();
        tape.keep_session(&session("mixed", &["before/a/1", "r/a/1"])).unwrap();
        tape.keep_session(&session("mixed", &["other/a/1", "r/a/1"])).unwrap();
        drop(tape);
        let (tape, _) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
        assert!(tape.session("own").is_none());
        let kept: Vec<String> =
            tape.session("mixed").unwrap().turns.into_iter().map(|turn| turn.key).collect();
        assert_eq!(kept, ["before/a/1"]);
    }

    #[test]
    fn an_effect_that_could_not_be_read_again_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tape = recorder(dir.path());
        let key = OpKey { path: StepPath::from("a"), turn: 1, role: OpRole::Attempt };
        let record = |levels: usize| {
            let request = (0..levels).fold(json!(1), |inner, _| json!([inner]));
            let effect = TapedEffect { key: &key, ordinal: 0, name: "call", request: &request };
            tape.record(&effect, Came::Result(&Ok(json!(1))))
        };
        record(blob::MAX_DEPTH - 8).unwrap();
        assert!(record(blob::MAX_DEPTH - 7).unwrap_err().message.contains("nested too deep"));
        drop(tape);
        assert!(FileTape::replay(dir.path(), Redactor::default()).is_ok());
    }
}
