//! What stands around every live provider: breaker( governor( limit of the process( one attempt ))).
//!
//! Owns [`Layers`]: the accounts and circuits that all providers of this process share. Must not know any provider.

use std::path::Path;
use std::sync::Arc;

use pipeline_core::provider::{Provider, ProviderLimits};
use pipeline_core::value::Hash;
use pipeline_providers::{Account, Broken, Circuits, Governed, Limited, Rates};

/// What live providers share.
pub struct Layers {
    rates: Rates,
    circuits: Arc<Circuits>,
}

impl Layers {
    /// Shared with other processes through `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self { rates: Rates::shared(state_dir.join("cache").join("rates")), circuits: Arc::default() }
    }

    /// The account of a provider: where it is and who calls, `identity`, whatever name it has.
    pub fn account(&self, name: &str, identity: &[&str], limits: &ProviderLimits) -> Arc<Account> {
        self.rates.account(name, &Hash::of(&identity).to_string(), limits)
    }

    /// A provider with every layer around it.
    pub fn around(&self, inner: Arc<dyn Provider>, account: Arc<Account>) -> Arc<dyn Provider> {
        let limited: Arc<dyn Provider> = Arc::new(Limited(inner));
        let governed: Arc<dyn Provider> = Arc::new(Governed::new(limited, account));
        Arc::new(Broken::new(governed, Arc::clone(&self.circuits)))
    }
}
