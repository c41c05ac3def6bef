//! `pipeline sessions`: durable conversations.

use pipeline_core::clock::SystemClock;
use pipeline_core::message::Role;
use pipeline_core::store::{Session, SessionSummary};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::app::App;
use crate::args::Sessions;
use crate::console::visible;
use crate::exit::{Exit, Failure};
use crate::wiring;

/// Looks into conversations, or removes some.
///
/// # Errors
/// [`Failure`] when one cannot be read, or does not exist.
pub async fn sessions(app: &App, args: &Sessions) -> Result<Exit, Failure> {
    let store = wiring::sessions(&app.settings.state_dir(None), Arc::new(SystemClock));
    let broken = |error: pipeline_core::error::StepError| {
        let failure = Failure::environment(error.message);
        match error.help {
            Some(help) => failure.help(help),
            None => failure,
        }
    };
    let unknown = |name: &str| {
        Failure::environment(format!("there is no session `{name}`"))
            .help("`pipeline sessions list` names the sessions of this state directory")
    };
    match args {
        Sessions::List => {
            let all = store.list().await.map_err(broken)?;
            app.console.out(&if app.settings.json {
                format!("{:#}\n", json!({ "schema": "pipeline.sessions/1", "sessions": all }))
            } else {
                all.iter().map(line).collect()
            })?;
        }
        Sessions::Show(one) => {
            let session = store.read(&one.name).await.map_err(broken)?.ok_or_else(|| unknown(&one.name))?;
            app.console.out(&if app.settings.json {
                format!("{:#}\n", json!({ "schema": "pipeline.sessions/1", "sessions": [session] }))
            } else {
                told(&session)
            })?;
        }
        Sessions::Rm(args) => {
            for name in &args.names {
                if !store.remove(name).await.map_err(broken)? {
                    return Err(unknown(name));
                }
                app.console.note(&format!("removed session {}", visible(name)));
            }
        }
    }
    Ok(Exit::Success)
}

fn line(session: &SessionSummary) -> String {
    let name = visible(&session.name);
    match &session.damage {
        Some(damage) => format!("{name}  damaged: {}\n", visible(damage)),
        None => {
            let turns = if session.turns == 1 { "turn" } else { "turns" };
            format!("{name}  {} {turns}, {} bytes, {}\n", session.turns, session.bytes, session.updated_at)
        }
    }
}

fn told(session: &Session) -> String {
    let mut text = String::new();
    for (name, value) in &session.variables {
        let value: &Value = value;
        text.push_str(&format!("{} = {}\n", visible(name), visible(&value.to_string())));
    }
    for (number, turn) in session.turns.iter().enumerate() {
        text.push_str(&format!("--- turn {} ({})\n", number + 1, visible(&turn.provider)));
        for message in &turn.messages {
            let who = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            text.push_str(&format!("{who}: {}\n", visible(&message.text())));
        }
    }
    text
}
