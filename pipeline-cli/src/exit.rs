//! How the program ends: exit codes, and the sentence that goes with one that is not 0.
//!
//! Owns [`Exit`] and [`Failure`], and says which code each way of ending has. The numbers are a contract with scripts.
//! Must not know how anything is printed.

use std::fmt;

use pipeline_core::engine::EngineError;
use pipeline_core::fact::RunStatus;
use pipeline_core::store::StoreError;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Success = 0,
    /// A run ended without success.
    Failed = 1,
    /// The command line or the pipeline is wrong; nothing ran.
    Usage = 2,
    /// This machine lacks something: a credential, a directory, a run.
    Environment = 3,
    /// The run waits for a person.
    Paused = 4,
    /// The run reached a budget.
    Budget = 5,
    /// The journal could not be written; nothing after the failure counts.
    Journal = 74,
    /// The run waits for a provider's quota.
    Parked = 75,
    /// The run's own deadline passed.
    TimedOut = 124,
    /// SIGINT; the state is saved.
    Interrupted = 130,
    /// SIGTERM; the state is saved.
    Terminated = 143,
    /// SIGHUP; the state is saved.
    HungUp = 129,
}

impl Exit {
    const ALL: [Self; 12] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::Environment,
        Self::Paused,
        Self::Budget,
        Self::Journal,
        Self::Parked,
        Self::TimedOut,
        Self::HungUp,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a process of this program said by its code.
    pub fn of_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// The code for a run that stands like this. `Interrupted` is SIGINT's: whoever saw another signal knows better.
    pub fn of_status(status: RunStatus) -> Self {
        match status {
            RunStatus::Ok => Self::Success,
            RunStatus::Failed | RunStatus::Cancelled => Self::Failed,
            RunStatus::Paused => Self::Paused,
            RunStatus::Parked => Self::Parked,
            RunStatus::Budget => Self::Budget,
            // A run that still runs somewhere has not succeeded, and is not over.
            RunStatus::Interrupted | RunStatus::Running => Self::Interrupted,
            RunStatus::TimedOut => Self::TimedOut,
        }
    }
}

/// The name of a run's status in text and JSON.
pub fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Ok => "ok",
        RunStatus::Failed => "failed",
        RunStatus::Paused => "paused",
        RunStatus::Parked => "parked",
        RunStatus::Budget => "budget",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Interrupted => "interrupted",
        RunStatus::TimedOut => "timed_out",
        RunStatus::Running => "running",
    }
}

/// True when `pipeline resume` has something to go on with: the run stopped and has not ended.
pub fn is_resumable(status: RunStatus) -> bool {
    matches!(
        status,
        RunStatus::Paused
            | RunStatus::Parked
            | RunStatus::Budget
            | RunStatus::Interrupted
            | RunStatus::Running
    )
}

/// Why a command could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened; several when several things must be put right.
    pub messages: Vec<String>,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// One sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, messages: vec![message.into()], help: None }
    }

    /// The command line, or what it names, is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// This machine lacks something.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Exit::Environment, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join("; "))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Write { .. } => Self::new(Exit::Journal, message).help(
                "free space on that disk or put it right, then `pipeline resume`: what was recorded is safe",
            ),
            StoreError::Directory { .. } => Self::environment(message)
                .help("make it writable, or name another with --state-dir or PIPELINE_CHECKPOINT_DIR"),
            StoreError::Unknown { .. } => {
                Self::environment(message).help("`pipeline runs list` names the runs of this state directory")
            }
            StoreError::Held { pid, .. } => {
                let who = if pid == 0 { "the other process".to_owned() } else { format!("process {pid}") };
                Self::environment(message)
                    .help(format!("wait until {who} is done, or stop it, then try again"))
            }
            StoreError::Damaged { .. } => Self::environment(message)
                .help("nothing was changed; keep a copy of the run's directory before trying anything"),
            StoreError::Newer { .. } => Self::environment(message).help("use a newer version of `pipeline`"),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Answer(message) => Self::usage(message)
                .help("`pipeline runs show` says what the run waits for; answers are JSON, or plain text"),
            EngineError::Mismatch(_) => Self::environment(error.to_string()).help(
                "another version of `pipeline` may have written it; run that version, or begin a new run",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5, 74, 75, 124, 129, 130, 143]);
        for exit in Exit::ALL {
            assert_eq!(Exit::of_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::of_code(134), None, "an abort is none of its ways to end");
    }

    #[test]
    fn only_a_run_that_is_ok_gives_zero() {
        let others = [
            (RunStatus::Failed, 1),
            (RunStatus::Cancelled, 1),
            (RunStatus::Paused, 4),
            (RunStatus::Parked, 75),
            (RunStatus::Budget, 5),
            (RunStatus::Interrupted, 130),
            (RunStatus::Running, 130),
            (RunStatus::TimedOut, 124),
        ];
        assert_eq!(Exit::of_status(RunStatus::Ok).code(), 0);
        for (status, code) in others {
            assert_eq!(Exit::of_status(status).code(), code, "{status:?}");
        }
    }

    #[test]
    fn names_of_statuses_are_those_of_the_journal() {
        for status in [RunStatus::Ok, RunStatus::TimedOut, RunStatus::Running, RunStatus::Budget] {
            assert_eq!(serde_json::to_value(status).unwrap_or_default(), status_name(status));
        }
    }

    #[test]
    fn a_held_run_names_its_owner() {
        let failure = Failure::from(StoreError::Held { run: "r1".to_owned(), pid: 4711 });
        assert_eq!(failure.exit, Exit::Environment);
        assert!(failure.to_string().contains("4711"), "{failure}");
        assert!(failure.help.is_some_and(|h| h.contains("4711")));
    }

    #[test]
    fn a_write_that_fails_is_the_journals_code_and_a_directory_is_not() {
        let path = std::path::PathBuf::from("/state");
        let write = StoreError::Write { path: path.clone(), message: "full".to_owned() };
        let directory = StoreError::Directory { path, message: "read-only".to_owned() };
        assert_eq!(Failure::from(EngineError::Store(write)).exit, Exit::Journal);
        assert_eq!(Failure::from(directory).exit, Exit::Environment);
    }
}
