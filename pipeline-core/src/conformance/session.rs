//! What every [`SessionStore`] does.
//!
//! Owns [`session_store`]. Must not know where a store keeps things: damage, locks between processes and formats are the
//! store's own tests.

#![allow(clippy::panic, clippy::expect_used, reason = "a suite fails by panicking in the test that calls it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;

use crate::error::ErrorKind;
use crate::fact::Usage;
use crate::message::{Content, FunctionCall, Message, Role};
use crate::store::{SessionLease, SessionStore, SessionTurn};
use crate::value::Value;

/// Runs the whole suite. Each call of `make` must give a new, empty store.
///
/// # Panics
/// When the store does not do what [`SessionStore`] promises; the message says which promise.
pub async fn session_store(make: impl Fn() -> Arc<dyn SessionStore>) {
    an_empty_store_has_no_sessions(&*make()).await;
    what_was_said_is_read_back(&*make()).await;
    a_name_may_be_any_text(&*make()).await;
    n11_concurrent_turns_are_numbered_without_gap_or_duplicate(&*make()).await;
    those_who_wait_are_served_in_the_order_of_asking(&*make()).await;
    who_stops_waiting_takes_nothing(&*make()).await;
    a_turn_that_comes_back_is_not_added_again(&*make()).await;
    a_turn_without_messages_only_sets_variables(&*make()).await;
    a_removed_session_begins_anew(&*make()).await;
    a_lease_does_not_keep_readers_out(&*make()).await;
    what_is_nested_too_deep_is_refused(&*make()).await;
}

/// A turn with every kind of content.
pub fn turn(key: &str) -> SessionTurn {
    let call = FunctionCall {
        id: "call-1".to_owned(),
        name: "look".to_owned(),
        arguments: json!({"at": [0.1, 1e300, u64::MAX, i64::MIN], "text": "ü\u{0}\u{2028}"}),
    };
    let mut answer = Message::assistant("It is a \"cat\".\n");
    answer.content.push(Content::ToolCall(call));
    answer
        .content
        .push(Content::Opaque { provider: "claude".to_owned(), block: json!({"signature": "x=="}) });
    let mut question = Message::user(format!("What is this, {key}?"));
    question.content.push(Content::Media {
        media_type: "image/png".to_owned(),
        name: "cat.png".to_owned(),
        data: "iVBORw0KGgo=".to_owned(),
    });
    SessionTurn {
        key: key.to_owned(),
        messages: vec![question, answer],
        provider: "claude".to_owned(),
        provider_session: Some(format!("session of {key}")),
        usage: Usage { input: 1, output: 2, cost_usd: Some(0.1), calls: 1, ..Usage::default() },
    }
}

/// Variables for a turn.
pub fn set(name: &str, value: Value) -> BTreeMap<String, Value> {
    BTreeMap::from([(name.to_owned(), value)])
}

async fn lease(store: &dyn SessionStore, name: &str) -> Box<dyn SessionLease> {
    store.lease(name).await.expect("a session can be taken")
}

async fn say(store: &dyn SessionStore, name: &str, key: &str) {
    let mut lease = lease(store, name).await;
    lease.append(turn(key), BTreeMap::new()).await.expect("a turn can be added");
}

async fn keys(store: &dyn SessionStore, name: &str) -> Vec<String> {
    let session = store.read(name).await.expect("a session can be read").expect("the session is there");
    session.turns.into_iter().map(|turn| turn.key).collect()
}

async fn an_empty_store_has_no_sessions(store: &dyn SessionStore) {
    assert!(store.list().await.expect("an empty store has a list").is_empty());
    assert_eq!(store.read("chat").await.expect("a missing session can be asked for"), None);
    assert!(!store.remove("chat").await.expect("a missing session can be removed"));
    let taken = lease(store, "chat").await;
    assert_eq!((taken.session().name.as_str(), taken.session().turns.len()), ("chat", 0));
    drop(taken);
    assert_eq!(store.read("chat").await.expect("it can be read"), None, "a session without a turn is none");
    assert!(store.list().await.expect("it has a list").is_empty(), "a session without a turn is not listed");
}

async fn what_was_said_is_read_back(store: &dyn SessionStore) {
    let mut taken = lease(store, "chat").await;
    taken.append(turn("a"), set("topic", json!({"deep": [1, null]}))).await.expect("a turn can be added");
    taken.append(turn("b"), set("count", json!(2))).await.expect("another one too");
    let seen = taken.session().clone();
    drop(taken);
    assert_eq!(seen.turns, [turn("a"), turn("b")], "the lease shows what was added");
    let read = store.read("chat").await.expect("it can be read");
    assert_eq!(read.as_ref(), Some(&seen));
    assert_eq!(lease(store, "chat").await.session(), &seen);
    let variables =
        BTreeMap::from([("topic".to_owned(), json!({"deep": [1, null]})), ("count".to_owned(), json!(2))]);
    assert_eq!(seen.variables, variables);
    let list = store.list().await.expect("it can be listed");
    assert_eq!((list.len(), list[0].name.as_str(), list[0].turns), (1, "chat", 2));
    assert_eq!(list[0].damage, None);
}

async fn a_name_may_be_any_text(store: &dyn SessionStore) {
    let long = "n".repeat(5000);
    let names =
        ["", ".", "..", "../up", "/etc/passwd", "a b", "A B", "ä\u{0}", "ä", &long, "con", "x/y", "x\\y"];
    for name in names {
        say(store, name, name).await;
    }
    for name in names {
        assert_eq!(keys(store, name).await, [name], "{name:?} has its own turns");
    }
    let listed: Vec<String> =
        store.list().await.expect("it can be listed").into_iter().map(|one| one.name).collect();
    let mut sorted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sorted.sort();
    assert_eq!(listed, sorted);
}

/// Naive: read, answer, write back. Two that overlap read the same, and one answer is lost.
async fn n11_concurrent_turns_are_numbered_without_gap_or_duplicate(store: &dyn SessionStore) {
    let speak = |_| async {
        let mut taken = lease(store, "chat").await;
        let number = taken.session().turns.len();
        tokio::task::yield_now().await;
        let said = set("last", json!(number));
        taken.append(turn(&number.to_string()), said).await.expect("a turn can be added");
    };
    join_all((0..20).map(speak)).await;
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(keys(store, "chat").await, expected);
    let session = store.read("chat").await.expect("it can be read").expect("it is there");
    assert_eq!(session.variables, set("last", json!(19)));
}

async fn those_who_wait_are_served_in_the_order_of_asking(store: &dyn SessionStore) {
    let served = Mutex::new(Vec::new());
    let first = lease(store, "chat").await;
    let wait = |number: usize| {
        let served = &served;
        async move {
            let taken = lease(store, "chat").await;
            served.lock().push(number);
            drop(taken);
        }
    };
    let give_up = async {
        tokio::task::yield_now().await;
        drop(first);
    };
    // `join_all` asks in order, then the first one gives the session up.
    tokio::join!(join_all((0..10).map(wait)), give_up);
    assert_eq!(*served.lock(), (0..10).collect::<Vec<_>>());
}

async fn who_stops_waiting_takes_nothing(store: &dyn SessionStore) {
    let first = lease(store, "chat").await;
    {
        let waiting = store.lease("chat");
        tokio::pin!(waiting);
        let came = tokio::select! {
            biased;
            _ = &mut waiting => true,
            () = tokio::task::yield_now() => false,
        };
        assert!(!came, "a session is taken once");
        let other = lease(store, "other").await;
        drop(other);
    }
    drop(first);
    say(store, "chat", "a").await;
    assert_eq!(keys(store, "chat").await, ["a"]);
}

async fn a_turn_that_comes_back_is_not_added_again(store: &dyn SessionStore) {
    say(store, "chat", "a").await;
    let mut taken = lease(store, "chat").await;
    let again = SessionTurn { messages: vec![Message::user("else")], ..turn("a") };
    taken.append(again.clone(), set("x", json!(1))).await.expect("a known turn is accepted");
    taken.append(turn("b"), BTreeMap::new()).await.expect("a new turn too");
    taken.append(again, BTreeMap::new()).await.expect("a known turn is accepted");
    let session = taken.session().clone();
    assert_eq!(session.turns, [turn("a"), turn("b")]);
    assert!(session.variables.is_empty(), "a turn that was there sets nothing");
    drop(taken);
    assert_eq!(store.read("chat").await.expect("it can be read"), Some(session));
}

async fn a_turn_without_messages_only_sets_variables(store: &dyn SessionStore) {
    let silent = SessionTurn { messages: Vec::new(), ..turn("set") };
    for value in [1, 2] {
        let mut taken = lease(store, "chat").await;
        taken.append(silent.clone(), set("x", json!(value))).await.expect("variables can be set");
        assert!(taken.has("set") && !taken.has("another"), "a key that only set variables is known");
    }
    let session = store.read("chat").await.expect("it can be read").expect("it is there");
    assert_eq!((session.turns.len(), session.variables), (0, set("x", json!(1))));
}

async fn a_removed_session_begins_anew(store: &dyn SessionStore) {
    say(store, "chat", "a").await;
    say(store, "other", "b").await;
    assert!(store.remove("chat").await.expect("it can be removed"));
    assert!(!store.remove("chat").await.expect("it can be asked again"));
    assert_eq!(store.read("chat").await.expect("it can be asked for"), None);
    say(store, "chat", "c").await;
    assert_eq!(keys(store, "chat").await, ["c"]);
    assert_eq!(keys(store, "other").await, ["b"]);
}

async fn a_lease_does_not_keep_readers_out(store: &dyn SessionStore) {
    let mut taken = lease(store, "chat").await;
    for number in 1..=3 {
        taken.append(turn(&number.to_string()), BTreeMap::new()).await.expect("a turn can be added");
        assert_eq!(keys(store, "chat").await.len(), number, "what was added can be read at once");
        assert_eq!(store.list().await.expect("it can be listed").len(), 1);
    }
}

async fn what_is_nested_too_deep_is_refused(store: &dyn SessionStore) {
    let deep = || (0..600).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let call = FunctionCall { id: String::new(), name: "f".to_owned(), arguments: deep() };
    let content = vec![Content::ToolCall(call)];
    let said = SessionTurn { messages: vec![Message { role: Role::Assistant, content }], ..turn("b") };
    let mut taken = lease(store, "chat").await;
    for (turn, set) in [(turn("a"), set("x", deep())), (said, BTreeMap::new())] {
        let refused = taken.append(turn, set).await.expect_err("no value is nested that deep");
        assert_eq!(refused.kind, ErrorKind::Invalid);
    }
    taken.append(turn("c"), BTreeMap::new()).await.expect("what was refused did no harm");
    drop(taken);
    assert_eq!(keys(store, "chat").await, ["c"]);
}
