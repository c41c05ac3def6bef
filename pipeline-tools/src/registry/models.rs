//! The registry under a model checker: `cargo xtask models`.
//!
//! Owns a model of threads that register, take out, look up and list at once, and of a naive registry that the checker must see
//! through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use pipeline_core::sync::models::{check, is_seen_through};
use pipeline_core::tool::ToolOutput;
use serde_json::{Value, json};
use shuttle::thread;

use super::*;

/// A tool that tells whose it is.
struct Mine(usize);

#[async_trait]
impl Tool for Mine {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "tool".to_owned(),
            description: self.0.to_string(),
            parameters: json!({"type": "object"}),
        }
    }

    async fn call(&self, _: Value, _: &StepContext) -> Result<ToolOutput, StepError> {
        Err(StepError::invalid("nobody calls it"))
    }
}

/// Naive: the name is looked for, and taken when nobody had it a moment ago.
#[test]
fn n02_n14_of_two_tools_of_one_name_one_is_there_and_a_handle_stays_what_it_was() {
    check(|| {
        let registry = Arc::new(Registry::default());
        let makers = [1, 2].map(|owner| {
            let registry = Arc::clone(&registry);
            thread::spawn(move || registry.register(Arc::new(Mine(owner))).is_ok())
        });
        let looker = {
            let registry = Arc::clone(&registry);
            thread::spawn(move || {
                let handle = registry.get("tool");
                assert!(registry.list().len() <= 1);
                let before = handle.as_ref().map(|tool| tool.spec().description);
                thread::yield_now();
                assert_eq!(handle.map(|tool| tool.spec().description), before, "whatever became of its name");
            })
        };
        let taker = {
            let registry = Arc::clone(&registry);
            thread::spawn(move || registry.unregister("tool").is_some())
        };
        let made = makers.map(|maker| maker.join().unwrap()).into_iter().filter(|made| *made).count();
        looker.join().unwrap();
        let taken = usize::from(taker.join().unwrap());
        let left = registry.list().len();
        assert_eq!(made, taken + left, "each that was let in is there, or was taken out");
        assert!(left <= 1 && made >= 1);
    });
}

#[test]
fn the_checker_sees_through_a_registry_that_looks_first_and_takes_then() {
    assert!(is_seen_through(|| {
        let names = Arc::new(RwLock::new(BTreeMap::new()));
        let makers = [1, 2].map(|owner| {
            let names = Arc::clone(&names);
            thread::spawn(move || {
                let is_free = !names.read().contains_key("tool");
                if is_free {
                    names.write().insert("tool", owner);
                }
                is_free
            })
        });
        let made = makers.map(|maker| maker.join().unwrap());
        assert_ne!(made, [true, true], "both were told that the name is theirs");
    }));
}
