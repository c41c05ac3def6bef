//! The providers that a composition root registers together.
//!
//! Owns the list of names that the mock stands in for. Must not know how each is built inside.

use std::sync::Arc;

use pipeline_core::provider::{Provider, ProviderEntry};

use crate::mock::{CallLog, MockProvider, MockRules};

/// Names of the built-in backends.
const NAMES: [&str; 4] = ["claude", "gemini", "openai", "ollama"];

/// A mock in the place of an entry of `providers`, which counts calls by itself.
pub fn mock_for(entry: &ProviderEntry, rules: Arc<MockRules>) -> Arc<dyn Provider> {
    let mock = MockProvider::new(entry.name.clone(), rules);
    Arc::new(mock.in_place_of(&entry.kind, entry.model.clone()))
}

/// A mock for every built-in backend, all scripted by `rules`.
///
/// They count calls together: a step that falls back from one provider to another goes on counting.
pub fn mocks(rules: Arc<MockRules>) -> Vec<Arc<dyn Provider>> {
    let log = Arc::new(CallLog::default());
    NAMES
        .into_iter()
        .map(move |name| {
            let mock = MockProvider::sharing(name, Arc::clone(&rules), Arc::clone(&log));
            Arc::new(mock) as Arc<dyn Provider>
        })
        .collect()
}
