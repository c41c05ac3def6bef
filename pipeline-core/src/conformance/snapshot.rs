//! What every [`SnapshotStore`] does.
//!
//! Owns [`snapshot_store`]. Must not know where a store keeps things: damage and formats are the store's own tests.

#![allow(clippy::panic, clippy::expect_used, reason = "a suite fails by panicking in the test that calls it")]

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::clock::{Clock, Timestamp};
use crate::error::ErrorKind;
use crate::store::{SnapshotSpace, SnapshotStore};
use crate::value::Value;

use SnapshotSpace::{Cache, Checkpoint};

/// A clock that a test sets.
#[derive(Default)]
pub struct SetClock(Mutex<Timestamp>);

impl SetClock {
    /// One that stands at a time until it is set.
    pub fn at(at: Timestamp) -> Self {
        Self(Mutex::new(at))
    }

    /// Sets the time.
    pub fn set(&self, at: Timestamp) {
        *self.0.lock() = at;
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// Runs the whole suite. Each call of `make` must give a new, empty store that tells time by the given clock.
///
/// # Panics
/// When the store does not do what [`SnapshotStore`] promises; the message says which promise.
pub async fn snapshot_store(make: impl Fn(Arc<dyn Clock>) -> Arc<dyn SnapshotStore>) {
    let clock = Arc::new(SetClock::default());
    let store = |clock: &Arc<SetClock>| make(Arc::<SetClock>::clone(clock));
    what_was_saved_is_loaded(&*store(&clock), &clock).await;
    spaces_do_not_meet(&*store(&clock)).await;
    a_name_may_be_any_text_but_none(&*store(&clock)).await;
    values_come_back_to_the_digit(&*store(&clock)).await;
}

async fn load(store: &dyn SnapshotStore, space: SnapshotSpace, name: &str) -> Option<Value> {
    store.load(space, name).await.expect("a snapshot can be asked for").map(|(value, _)| value)
}

async fn save(store: &dyn SnapshotStore, space: SnapshotSpace, name: &str, value: Value) {
    store.save(space, name, &value).await.expect("a value can be saved");
}

async fn what_was_saved_is_loaded(store: &dyn SnapshotStore, clock: &SetClock) {
    assert_eq!(load(store, Checkpoint, "a").await, None);
    for (at, value) in [(1_700_000_000_123, json!({"x": 1})), (1_700_000_005_000, json!("other"))] {
        clock.set(Timestamp(at));
        save(store, Checkpoint, "a", value.clone()).await;
        let found = store.load(Checkpoint, "a").await.expect("it can be loaded");
        assert_eq!(found, Some((value, Timestamp(at))), "the last value that was saved, and when");
    }
}

async fn spaces_do_not_meet(store: &dyn SnapshotStore) {
    save(store, Checkpoint, "a", json!(1)).await;
    assert_eq!(load(store, Cache, "a").await, None);
    save(store, Cache, "a", json!(2)).await;
    assert_eq!(
        (load(store, Checkpoint, "a").await, load(store, Cache, "a").await),
        (Some(json!(1)), Some(json!(2)))
    );
}

async fn a_name_may_be_any_text_but_none(store: &dyn SnapshotStore) {
    let long = "n".repeat(5000);
    let names = [".", "..", "../up", "/etc/passwd", "a b", "A B", "ä\u{0}", "ä", &long, "x/y"];
    for name in names {
        save(store, Checkpoint, name, json!(name)).await;
    }
    for name in names {
        assert_eq!(load(store, Checkpoint, name).await, Some(json!(name)), "{name:?} has its own value");
    }
    for name in ["", "  "] {
        let refused = store.save(Checkpoint, name, &json!(1)).await.expect_err("no name is refused");
        assert_eq!(refused.kind, ErrorKind::Invalid);
    }
}

async fn values_come_back_to_the_digit(store: &dyn SnapshotStore) {
    let value = json!({
        "numbers": [0.1, 1e300, -0.0, 5e-324, 1.0, u64::MAX, i64::MIN],
        "text": "ü\u{0}\u{2028}\n", "large": "x".repeat(200_000), "order": {"z": 1, "a": 2},
    });
    save(store, Cache, "v", value.clone()).await;
    let found = load(store, Cache, "v").await.expect("it is there");
    assert_eq!(found.to_string(), value.to_string());
    let deep = (0..10_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let refused = store.save(Cache, "v", &deep).await.expect_err("no value is nested that deep");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert!(load(store, Cache, "v").await.is_some(), "a refused value does not replace the one before");
    forget(deep);
}

/// Drops a deep value without recursion.
fn forget(value: Value) {
    let mut left = vec![value];
    while let Some(next) = left.pop() {
        match next {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => left.extend(fields.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
}
