//! The binary `pipeline`.
//!
//! Owns the process: its runtime and its exit code. Reading order: `args.rs`, `app.rs`, then the command of interest in
//! `command/`. Must not know anything else.

mod advice;
mod app;
mod args;
mod command;
mod config;
mod console;
mod exit;
mod figures;
mod health;
mod inputs;
mod itself;
#[cfg(feature = "jq")]
mod jq;
mod logging;
mod monitor;
mod report;
mod settings;
mod setup;
mod sources;
mod supervise;
mod taping;
#[cfg(feature = "otel")]
mod telemetry;
mod walk;
mod wiring;
#[cfg(all(test, target_os = "linux"))]
mod soak;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Values are made by one thread and dropped by another, millions of them in a large table: the allocators of glibc and, far
/// more, musl spend a third of a run on that.
#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end waits for calls that cannot be cut off, such as a write to a disk that does not answer. A second
/// Ctrl-C means at once.
const LINGER: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    #[cfg(feature = "jq")]
    if let Some(code) = as_jq_child() {
        return code;
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => {
            // Help that nobody reads any more is no error.
            let _gone = asked.print();
            return ExitCode::from(u8::try_from(asked.exit_code()).unwrap_or(exit::Exit::Usage.code()));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure =
                exit::Failure::environment(format!("the program cannot start its threads: {error}"));
            let console = console::Console::new(&settings::Settings::default());
            return ExitCode::from(console.fail(&failure).code());
        }
    };
    let exit = runtime.block_on(app::dispatch(cli));
    runtime.shutdown_timeout(LINGER);
    ExitCode::from(exit.code())
}

/// The whole life of this process when it was started to run a jq program.
#[cfg(feature = "jq")]
fn as_jq_child() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != jq::ARGUMENT {
        return None;
    }
    Some(jq::serve(args.next().and_then(|s| s.to_str()?.parse().ok())))
}
