//! Bugs that the tests of reliability must find: each test's control.
//!
//! Owns the list of them, and whether one is planted: only in a build with the feature `planted-bugs`, and only the one that
//! the environment names. Without the feature the answer is a constant, so that nothing of a bug is in the program. The
//! places that have one look as `if planted(Bug::…) { … }`. Must not know what the tests do: `cargo xtask reliability`.

/// What can be wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A commit is told as done before it is written.
    AckBeforeWrite,
    /// The checksum of a journal's line leaves out its last field.
    SkipLastField,
    /// A flush that failed is tried again, and counts when it works then.
    RetryFlush,
    /// What is written to the journal is not flushed.
    SkipFlush,
    /// A run is taken whoever holds it, and records of an owner that has lost it are believed.
    NoOwner,
    /// An attempt is a task of its own, that nothing stops and whose panic is lost.
    BareSpawn,
    /// A child is killed alone, and not its group.
    KillOnDrop,
    /// Only connecting to a service has a deadline.
    ConnectTimeout,
    /// The first of the steps that a step needs is not waited for.
    ReadySet,
    /// The sign behind the place of a finding is looked at, whether there is one or not.
    IndexBySpan,
    /// A pipeline file may be made of any number of parts.
    RaiseBudget,
    /// Paths are joined as text, and opened wherever they lead.
    JoinPaths,
    /// Requests are logged as they are sent.
    LogRequest,
    /// An address that a name leads to is not looked at.
    ResolveOnce,
    /// A program for which a sandbox is asked for starts without one.
    NoNamespace,
    /// What a template gave is rendered again.
    RenderTwice,
    /// Values stand in the text of a shell script.
    SpliceScript,
    /// A resume does not believe the last record.
    ForgetLast,
}

impl Bug {
    /// How the environment names it.
    #[cfg(feature = "planted-bugs")]
    const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeWrite => "ack-before-write",
            Self::SkipLastField => "skip-last-field",
            Self::RetryFlush => "retry-flush",
            Self::SkipFlush => "skip-flush",
            Self::NoOwner => "no-owner",
            Self::BareSpawn => "bare-spawn",
            Self::KillOnDrop => "kill-on-drop",
            Self::ConnectTimeout => "connect-timeout",
            Self::ReadySet => "ready-set",
            Self::IndexBySpan => "index-by-span",
            Self::RaiseBudget => "raise-budget",
            Self::JoinPaths => "join-paths",
            Self::LogRequest => "log-request",
            Self::ResolveOnce => "resolve-once",
            Self::NoNamespace => "no-namespace",
            Self::RenderTwice => "render-twice",
            Self::SpliceScript => "splice-script",
            Self::ForgetLast => "forget-last",
        }
    }
}

/// The variable that names the bug.
#[cfg(feature = "planted-bugs")]
pub const VARIABLE: &str = "PIPELINE_PLANTED_BUG";

/// Whether the bug is there.
#[cfg(feature = "planted-bugs")]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads which bug is wanted, and in no real program"
)]
pub fn planted(bug: Bug) -> bool {
    static WANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());
    WANTED.as_deref() == Some(bug.name())
}

/// Whether the bug is there: it is not.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}
