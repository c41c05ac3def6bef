//! What the tables of faults share: rows that cannot be forgotten, and what a caller is told.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::ModelAnswer;

/// Declares the rows of a table with the list of all of them, so that whoever goes through it leaves none out.
macro_rules! rows {
    ($(#[$about:meta])* $name:ident { $($row:ident),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($row),* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$row),*];
        }
    };
}

/// What the caller of one cell is told.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// An answer after all: its text, and how many warnings come with it.
    Answer(&'static str, usize),
    /// One typed error.
    Fails(Fails),
}

/// The error of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Fails {
    pub kind: ErrorKind,
    /// Whether the schedule may try again by itself.
    pub again: bool,
    /// Words of the message: the server's own where it had any.
    pub words: &'static str,
    /// The hint when to come back.
    pub after_ms: Option<u64>,
    /// What the ledger is told of money.
    pub bill: Bill,
}

/// What a failed call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bill {
    /// Nothing, or what was reserved, as the kind says.
    ByKind,
    /// What the service said.
    Told,
    /// What was reserved, although a refusal of this kind would be free.
    InFull,
}

/// An error that is not tried again.
pub fn ends(kind: ErrorKind, words: &'static str) -> Told {
    Told::Fails(Fails { kind, again: false, words, after_ms: None, bill: Bill::ByKind })
}

/// An error after which the schedule may try again.
pub fn again(kind: ErrorKind, words: &'static str) -> Told {
    Told::Fails(Fails { kind, again: true, words, after_ms: None, bill: Bill::ByKind })
}

impl Told {
    pub fn after(self, ms: u64) -> Self {
        self.with(|fails| Fails { after_ms: Some(ms), ..fails })
    }

    pub fn billed(self, bill: Bill) -> Self {
        self.with(|fails| Fails { bill, ..fails })
    }

    fn with(self, change: impl FnOnce(Fails) -> Fails) -> Self {
        match self {
            Self::Fails(fails) => Self::Fails(change(fails)),
            Self::Answer(..) => panic!("an answer has no such thing"),
        }
    }

    /// Compares with what came; gives the error, where one was to come.
    pub fn check(&self, cell: &str, came: Result<ModelAnswer, StepError>) -> Option<StepError> {
        match (self, came) {
            (Self::Answer(text, warnings), Ok(answer)) => {
                assert_eq!((answer.text.as_str(), answer.warnings.len()), (*text, *warnings), "{cell}");
                None
            }
            (Self::Fails(fails), Err(error)) => {
                assert_eq!(error.kind, fails.kind, "{cell}: {error:?}");
                assert_eq!(error.kind.is_transient(), fails.again, "{cell}: {error:?}");
                assert!(error.message.contains(fails.words), "{cell}: {error:?}");
                assert_eq!(error.retry_after_ms, fails.after_ms, "{cell}: {error:?}");
                let bill = match error.usage.as_deref() {
                    None => Bill::ByKind,
                    Some(usage) if *usage == Usage::unseen() => Bill::InFull,
                    Some(_) => Bill::Told,
                };
                assert_eq!(bill, fails.bill, "{cell}: {error:?}");
                Some(error)
            }
            (_, came) => panic!("{cell}: {self:?} was to come, and not {came:?}"),
        }
    }
}
