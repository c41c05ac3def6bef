//! The real binary on real files, as a user meets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "process/support.rs"]
mod support;
#[path = "process/author.rs"]
mod author;
#[path = "process/broken.rs"]
mod broken;
#[path = "process/canaries.rs"]
mod canaries;
#[cfg(feature = "mock-server")]
#[path = "process/configured.rs"]
mod configured;
#[path = "process/contract.rs"]
mod contract;
#[path = "process/after.rs"]
mod after;
#[path = "process/crash.rs"]
mod crash;
#[path = "process/cuts.rs"]
mod cuts;
#[cfg(target_os = "linux")]
#[path = "process/faults.rs"]
mod faults;
#[path = "process/detached.rs"]
mod detached;
#[path = "process/edited.rs"]
mod edited;
#[path = "process/errors.rs"]
mod errors;
#[cfg(feature = "jq")]
#[path = "process/jq.rs"]
mod jq;
#[path = "process/forms.rs"]
mod forms;
#[path = "process/large.rs"]
mod large;
#[path = "process/lasting.rs"]
mod lasting;
#[path = "process/docs.rs"]
mod docs;
#[cfg(target_os = "linux")]
#[path = "process/orphans.rs"]
mod orphans;
#[cfg(target_os = "linux")]
#[path = "process/sandbox.rs"]
mod sandbox;
#[cfg(all(target_os = "linux", feature = "jq"))]
#[path = "process/bombs.rs"]
mod bombs;
#[path = "process/poison.rs"]
mod poison;
#[path = "process/outside.rs"]
mod outside;
#[path = "process/replay.rs"]
mod replay;
#[path = "process/shapes.rs"]
mod shapes;
#[cfg(feature = "mock-server")]
#[path = "process/server.rs"]
mod server;
#[cfg(feature = "mock-server")]
#[path = "process/secrets.rs"]
mod secrets;
#[cfg(feature = "mock-server")]
#[path = "process/limits.rs"]
mod limits;
#[cfg(feature = "mock-server")]
#[path = "process/money.rs"]
mod money;
#[cfg(all(feature = "mock-server", feature = "code", feature = "jq"))]
#[path = "process/cases.rs"]
mod cases;
#[cfg(all(feature = "mock-server", feature = "code", feature = "jq"))]
#[path = "process/cases_complete.rs"]
mod cases_complete;
#[path = "process/taping.rs"]
mod taping;
#[cfg(feature = "otel")]
#[path = "process/telemetry.rs"]
mod telemetry;
#[cfg(target_os = "linux")]
#[path = "process/terminal.rs"]
mod terminal;
#[path = "process/tools.rs"]
mod tools;
#[cfg(feature = "code")]
#[path = "process/typos.rs"]
mod typos;
