//! `pipeline verify FILE --crash --faults`: runs a file on mocks, kills the process at every record of its journal or lets the disk
//! be full at every operation on it, resumes, and compares with a run that was left alone.
//!
//! Owns `pipeline.verify/1`. The process is really killed: what it had in memory is gone. Next: `verify/trial.rs`.

mod trial;

use serde_json::json;

use crate::app::App;
use crate::args::Verify;
use crate::console::visible;
use crate::exit::{Exit, Failure};

use trial::{Found, Trial};

/// What happens to a run.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// It is killed after this record.
    Kill(usize),
    /// The disk is full at this operation.
    Fault(usize),
}

impl Trouble {
    fn told(self) -> String {
        match self {
            Self::Kill(after) => format!("killed after record {after}"),
            Self::Fault(at) => format!("the disk full at its operation {at}"),
        }
    }
}

/// Brings trouble and compares.
///
/// # Errors
/// [`Failure`] when the file does not run, or the program cannot start itself.
pub async fn verify(app: &App, args: &Verify) -> Result<Exit, Failure> {
    if !args.crash && !args.faults {
        return Err(Failure::usage("there is nothing to verify without --crash or --faults")
            .help("write `pipeline verify FILE --crash --faults`"));
    }
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::environment(format!("a temporary folder is needed: {error}")))?;
    let trial = Trial { app, args, place: scratch.path() };
    let whole = trial.alone().await?;
    if !whole.unsteady.is_empty() {
        app.console.note(&format!(
            "not compared, because two undisturbed runs differ in it: {}",
            visible(&whole.unsteady.join(", "))
        ));
    }
    let mut found: Vec<(Trouble, Option<Found>)> = Vec::new();
    let mut tell = |trouble: Trouble, problem: Option<Found>| {
        let outcome = match &problem {
            None => "the same came of it".to_owned(),
            Some(why) => visible(&why.to_string()),
        };
        app.console.note(&format!("{}: {outcome}", trouble.told()));
        found.push((trouble, problem));
    };
    if args.crash {
        for after in chosen(whole.records.saturating_sub(1), args.most) {
            tell(Trouble::Kill(after), trial.cut(after, &whole).await?);
        }
    }
    if args.faults {
        let operations = trial.operations(whole.records).await?;
        for at in chosen(operations, args.most) {
            // Which records share a flush is a matter of time: this run may have needed fewer.
            if let Some(problem) = trial.fault(at, &whole).await? {
                tell(Trouble::Fault(at), problem);
            }
        }
    }
    let bad = found.iter().filter(|(_, problem)| problem.is_some()).count();
    let smallest = found.iter().find_map(|(trouble, problem)| Some((trouble, problem.as_ref()?)));
    if app.settings.json {
        let told = |problem: &Option<Found>| problem.as_ref().map(ToString::to_string);
        let cuts = found.iter().filter_map(|(trouble, problem)| match trouble {
            Trouble::Kill(after) => Some(json!({"killed_after": after, "problem": told(problem)})),
            Trouble::Fault(_) => None,
        });
        let faults = found.iter().filter_map(|(trouble, problem)| match trouble {
            Trouble::Fault(at) => Some(json!({"failed_at": at, "problem": told(problem)})),
            Trouble::Kill(_) => None,
        });
        let document = json!({
            "schema": "pipeline.verify/1",
            "records": whole.records,
            "failed": bad,
            "cuts": cuts.collect::<Vec<_>>(),
            "faults": faults.collect::<Vec<_>>(),
            "not_compared": whole.unsteady,
        });
        app.console.out(&format!("{document:#}\n"))?;
    } else {
        let kills = found.iter().filter(|(trouble, _)| matches!(trouble, Trouble::Kill(_))).count();
        let kills = args.crash.then(|| format!("{kills} kills"));
        let faults = found.iter().filter(|(trouble, _)| matches!(trouble, Trouble::Fault(_))).count();
        let faults = args.faults.then(|| format!("{faults} full disks"));
        let made = kills.into_iter().chain(faults).collect::<Vec<_>>().join(" and ");
        app.console
            .out(&format!("{made} in a run of {} records: {bad} came out otherwise\n", whole.records))?;
        if let Some((trouble, why)) = smallest {
            app.console.out(&format!("the smallest: {}: {}\n", trouble.told(), visible(&why.to_string())))?;
        }
    }
    Ok(if bad == 0 { Exit::Success } else { Exit::Failed })
}

/// The places at which trouble comes: all, or so many evenly spread.
fn chosen(all: usize, most: usize) -> Vec<usize> {
    let most = most.max(1);
    if all <= most {
        return (1..=all).collect();
    }
    let mut spread: Vec<usize> = (0..most).map(|n| 1 + n * (all - 1) / (most - 1).max(1)).collect();
    spread.dedup();
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_comes_everywhere_or_evenly_spread() {
        assert_eq!(chosen(3, 100), [1, 2, 3]);
        assert_eq!(chosen(100, 5), [1, 25, 50, 75, 100]);
        assert!(chosen(0, 5).is_empty());
    }
}
