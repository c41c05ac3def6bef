//! `pipeline mock-server`: the wire formats of the model services, on loopback.
//!
//! Must not know what it answers: that is the server's.

use std::sync::Arc;

use serde_json::json;

use crate::app::App;
use crate::args::MockServer;
use crate::exit::{Exit, Failure};
use crate::setup::RulesText;
use crate::sources::reason;
use crate::supervise::{ProcessSignals, Signals};
use crate::wiring;

/// Serves until somebody stops it.
///
/// # Errors
/// [`Failure`] for rules that cannot be read, and for a port that is taken.
pub async fn mock_server(app: &App, args: &MockServer) -> Result<Exit, Failure> {
    let rules = match &args.rules {
        None => wiring::MockRules::default(),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(app.settings.absolute(path)).map_err(|error| {
                Failure::usage(format!("cannot read the mock rules {name}: {}", reason(&error)))
            })?;
            App::rules(&RulesText { name, text })?
        }
    };
    let server = wiring::mock_server(wiring::MockServerOptions {
        port: args.port,
        rules: Arc::new(rules),
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
    });
    let server = server.await.map_err(|error| {
        Failure::environment(format!("cannot listen on port {}: {}", args.port, reason(&error)))
            .help("choose another --port, or 0 for any that is free")
    })?;
    let address = format!("http://{}", server.address());
    app.console.out(&if app.settings.json {
        format!("{}\n", json!({"schema": "pipeline.mock-server/1", "address": address}))
    } else {
        format!("{address}\n")
    })?;
    app.console.note(&format!(
        "serving; use it with ANTHROPIC_BASE_URL={address} GOOGLE_GEMINI_BASE_URL={address} OPENAI_BASE_URL={address}/v1 \
         and any key; Ctrl-C ends it"
    ));
    let mut signals = ProcessSignals::listen()
        .map_err(|error| Failure::environment(format!("signals cannot be handled: {error}")))?;
    tokio::select! {
        served = server.serve() => match served {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(Failure::environment(format!("the server stopped: {}", reason(&error)))),
        },
        _asked = signals.next() => Ok(Exit::Success),
    }
}
