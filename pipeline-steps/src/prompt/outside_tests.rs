//! What a prompt step leaves outside of itself, or finds there: sessions, kept answers, files, images.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use pipeline_core::catalog::Services;
use pipeline_core::error::ErrorKind;
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::provider::{Capabilities, Content, ModelAnswer};
use pipeline_core::store::{Session, SessionLease, SessionStore, SessionSummary, SessionTurn};
use serde_json::json;

use super::*;
use crate::fixture::{Fixture, agent, answer, service};
use pipeline_core::value::Value;

/// Sessions in memory: one lease at a time for all of them.
#[derive(Default)]
struct Sessions {
    all: Arc<Mutex<BTreeMap<String, Session>>>,
    queue: Arc<tokio::sync::Mutex<()>>,
}

struct Lease {
    all: Arc<Mutex<BTreeMap<String, Session>>>,
    session: Session,
    _queue: tokio::sync::OwnedMutexGuard<()>,
}

#[async_trait]
impl SessionStore for Sessions {
    async fn lease(&self, name: &str) -> Result<Box<dyn SessionLease>, StepError> {
        let queue = Arc::clone(&self.queue).lock_owned().await;
        let known = self.all.lock().get(name).cloned();
        let session = known.unwrap_or_else(|| Session { name: name.to_owned(), ..Session::default() });
        Ok(Box::new(Lease { all: Arc::clone(&self.all), session, _queue: queue }))
    }

    async fn read(&self, name: &str) -> Result<Option<Session>, StepError> {
        Ok(self.all.lock().get(name).cloned())
    }

    async fn list(&self) -> Result<Vec<SessionSummary>, StepError> {
        let line = |s: &Session| SessionSummary {
            name: s.name.clone(),
            turns: s.turns.len() as u64,
            bytes: 0,
            updated_at: pipeline_core::clock::Timestamp(0),
            damage: None,
        };
        Ok(self.all.lock().values().map(line).collect())
    }

    async fn remove(&self, name: &str) -> Result<bool, StepError> {
        Ok(self.all.lock().remove(name).is_some())
    }
}

#[async_trait]
impl SessionLease for Lease {
    fn session(&self) -> &Session {
        &self.session
    }

    fn has(&self, key: &str) -> bool {
        self.session.turns.iter().any(|t| t.key == key)
    }

    async fn append(&mut self, turn: SessionTurn, _: BTreeMap<String, Value>) -> Result<(), StepError> {
        if !self.session.turns.iter().any(|t| t.key == turn.key) {
            self.session.turns.push(turn);
            self.all.lock().insert(self.session.name.clone(), self.session.clone());
        }
        Ok(())
    }
}

/// Runs the step at `path` of run `run`, with these sessions.
async fn turn(
    fx: &Fixture,
    store: &Arc<Sessions>,
    run: &str,
    path: &str,
    with: Value,
) -> Result<Value, StepError> {
    let mut cx = fx.context();
    let mut services: Services = (*cx.services).clone();
    services.sessions = Some(Arc::clone(store) as Arc<dyn SessionStore>);
    cx.services = Arc::new(services);
    let mut info = (*cx.run).clone();
    info.id = run.to_owned();
    cx.run = Arc::new(info);
    cx.key = OpKey { path: StepPath::from(path), turn: 1, role: OpRole::Attempt };
    let mut all = json!({ "provider": "test" });
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    Prompt::new(Arc::default()).run(&cx, all.into()).await.map(|output| output.value)
}

fn numbered(count: usize) -> Fixture {
    Fixture::answering((0..count).map(|n| Ok(answer(&format!("answer {n}")))).collect())
}

/// Naive: read the session, ask, write it back: turns that are asked at the same time get the same number.
#[tokio::test]
async fn n11_turns_at_the_same_time_have_no_gap_and_no_duplicate() {
    let fx = numbered(20);
    let store = Arc::<Sessions>::default();
    let with = json!({ "prompt": "Next", "session": { "name": "talk" } });
    let paths: Vec<String> = (0..20).map(|n| format!("fan[{n}]/ask")).collect();
    let turns = paths.iter().map(|path| turn(&fx, &store, "run", path, with.clone()));
    assert!(join_all(turns).await.into_iter().all(|value| value.is_ok()));
    let session = store.read("runs/run/talk").await.unwrap().unwrap();
    assert_eq!(session.turns.len(), 20);
    // Turn n was told exactly the n turns before it.
    for (n, request) in fx.requests().iter().enumerate() {
        assert_eq!(request.messages.len(), 2 * n + 1, "turn {n}");
    }
}

/// Naive: turns are counted after the model has answered, or not at all.
#[tokio::test]
async fn n11_a_turn_too_many_is_an_error_and_asks_nobody() {
    let fx = numbered(2);
    let store = Arc::<Sessions>::default();
    let with = json!({ "prompt": "Hi", "session": { "name": "s", "max_turns": 2 } });
    for path in ["a", "b"] {
        turn(&fx, &store, "run", path, with.clone()).await.unwrap();
    }
    let error = turn(&fx, &store, "run", "c", with).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Budget);
    assert!(error.message.contains("has had its 2 turns"), "{}", error.message);
    assert_eq!(fx.requests().len(), 2);
}

/// Naive: the session is kept by a name and looked for by an id, so that no later run finds it.
#[tokio::test]
async fn n11_a_later_run_goes_on_with_the_providers_own_session() {
    let fx = numbered(3).able(agent());
    let store = Arc::<Sessions>::default();
    let with = |go_on: bool| json!({ "prompt": "Hi", "session": { "name": "s", "persist": true, "continue_on_restart": go_on } });
    turn(&fx, &store, "one", "a", with(true)).await.unwrap();
    turn(&fx, &store, "two", "a", with(true)).await.unwrap();
    turn(&fx, &store, "three", "a", with(false)).await.unwrap();
    let sessions: Vec<Option<String>> = fx.requests().into_iter().map(|r| r.session).collect();
    assert_eq!(sessions, [None, Some("s1".to_owned()), None], "what is continued, and what begins anew");
    assert!(fx.requests().iter().all(|r| r.messages.len() == 1), "the provider knows what was said");
    assert_eq!(store.read("mock/s").await.unwrap().unwrap().turns.len(), 3, "mocks keep apart");
}

#[tokio::test]
async fn parts_read_and_continue_a_session() {
    let fx = numbered(3);
    let store = Arc::<Sessions>::default();
    let begin = json!({ "prompt": "One", "session": { "name": "s" } });
    turn(&fx, &store, "run", "a", begin).await.unwrap();
    let read = json!({ "prompt": [
        { "type": "static", "content": "Sum up:" },
        { "type": "session_context", "session": "s", "include_last_n": 1 },
    ] });
    turn(&fx, &store, "run", "b", read).await.unwrap();
    assert_eq!(fx.requests()[1].messages[0].text(), "Sum up:\nUser: One\n\nAssistant: answer 0");
    let go_on = json!({ "prompt": [{ "type": "claude_continue", "new_prompt": "Two", "session": "s" }] });
    turn(&fx, &store, "run", "c", go_on).await.unwrap();
    assert_eq!(fx.requests()[2].messages.len(), 3);
    let lost = json!({ "prompt": [{ "type": "claude_continue", "new_prompt": "Two", "session": "nobody" }] });
    let error = turn(&fx, &store, "run", "d", lost).await.unwrap_err();
    assert!(error.message.contains("nobody"), "{}", error.message);
    assert_eq!(store.read("runs/run/s").await.unwrap().unwrap().turns.len(), 2);
}

#[tokio::test]
async fn a_long_history_is_shortened_where_that_is_wanted() {
    let fx = numbered(3);
    let store = Arc::<Sessions>::default();
    let with = json!({
        "prompt": "Hi there", "session": { "name": "s" },
        "memory": { "auto_compact": true, "compact_threshold": 5, "max_context_length": 100 },
    });
    for path in ["a", "b", "c"] {
        turn(&fx, &store, "run", path, with.clone()).await.unwrap();
    }
    let last = &fx.requests()[2].messages;
    assert_eq!(last.len(), 3, "one turn is kept");
    assert!(last[0].text().starts_with("Shortened, the first 1 turns"), "{}", last[0].text());
    let long = json!({ "prompt": "x".repeat(500), "memory": { "max_context_length": 100 } });
    assert_eq!(turn(&fx, &store, "run", "d", long).await.unwrap_err().kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn extraction_is_a_field_and_the_text_stays() {
    let fx = Fixture::answering(vec![Ok(answer("- one\n- two"))]);
    let with = json!({ "prompt": "Hi", "extraction": { "post_processing": ["extract_key_points"] } });
    let value = turn(&fx, &Arc::default(), "run", "a", with).await.unwrap();
    assert_eq!(value["text"], "- one\n- two");
    assert_eq!(value["extraction"]["key_points"], json!(["one", "two"]));
}

#[tokio::test]
async fn images_go_as_they_are_where_they_are_taken() {
    let fx = numbered(1).able(Capabilities { images: true, ..service() });
    std::fs::write(fx.path("a.png"), b"\x89PNG\r\n\x1a\nrest").unwrap();
    std::fs::write(fx.path("a.pdf"), b"%PDF-1.7").unwrap();
    let part = |path: &str| json!({ "prompt": [{ "type": "file", "path": path }] });
    turn(&fx, &Arc::default(), "run", "a", part("a.png")).await.unwrap();
    let content = &fx.requests()[0].messages[0].content;
    let Content::Media { media_type, name, .. } = &content[0] else { panic!("{content:?}") };
    assert_eq!((media_type.as_str(), name.as_str()), ("image/png", "a.png"));
    let error = turn(&fx, &Arc::default(), "run", "b", part("a.pdf")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("PDF") && error.message.contains("a.pdf"), "{}", error.message);
}

#[tokio::test]
async fn an_expectation_that_is_not_met_fails_and_is_named() {
    let writing = || ModelAnswer {
        files: BTreeMap::from([("notes.md".to_owned(), "a\nb\n".to_owned())]),
        ..answer("done")
    };
    for (expect, unmet) in [
        (json!({ "files_changed": true, "max_diff_lines": 2, "text_matches": "^do" }), None),
        (json!({ "files_changed": ["*.md"] }), None),
        (json!({ "files_changed": "*.rs" }), Some("files_changed")),
        (json!({ "files_changed": false }), Some("files_changed")),
        (json!({ "max_diff_lines": 1 }), Some("max_diff_lines")),
        (json!({ "text_matches": ["done", "never"] }), Some("text_matches")),
        (json!({ "json_schema": { "type": "object" } }), Some("json_schema")),
    ] {
        let fx = Fixture::answering(vec![Ok(writing())]);
        let with = json!({ "prompt": "Go", "expect": expect });
        let met = turn(&fx, &Arc::default(), "run", "a", with).await;
        let named = met.err().map(|e| (e.kind, e.details["expectation"].as_str().unwrap_or("?").to_owned()));
        assert_eq!(named, unmet.map(|u| (ErrorKind::Schema, u.to_owned())), "{expect}");
    }
    let fx = numbered(0);
    let with = json!({ "prompt": "Go", "expect": { "command_ok": ["true"] } });
    let error = turn(&fx, &Arc::default(), "run", "a", with).await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Denied,
        "a command that is not allowed is refused before anything is paid for"
    );
}
