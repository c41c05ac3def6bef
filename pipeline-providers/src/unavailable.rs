//! The stand-in for a backend whose credential is missing.
//!
//! Owns [`Unavailable`]. A pipeline that never reaches such a backend runs without the credential; one that does gets
//! an error that names the variable. Must not read the environment: the composition root has looked.

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{
    Capabilities, ModelRequest, ModelStream, Price, Provider, ProviderEntry, WorstCase,
};
use pipeline_core::step::StepContext;

use crate::backend;
use crate::prices::PriceTable;

/// A provider that can be checked against but not called.
///
/// It reports what the live backend of its name would honour, so that `check` says the same with and without a
/// credential.
#[derive(Debug, Clone)]
pub struct Unavailable {
    name: String,
    kind: String,
    model: Option<String>,
    variables: &'static [&'static str],
    message: Option<String>,
}

impl Unavailable {
    /// The stand-in for `name`; any one of the environment variables `variables` would have made it available.
    pub fn new(name: impl Into<String>, variables: &'static [&'static str]) -> Self {
        let name = name.into();
        Self { kind: name.clone(), name, model: None, variables, message: None }
    }

    /// The stand-in for an entry of `providers`; `message` says what it lacks.
    pub fn because(entry: &ProviderEntry, message: String) -> Self {
        Self {
            name: entry.name.clone(),
            kind: entry.kind.clone(),
            model: entry.model.clone(),
            variables: &[],
            message: Some(message),
        }
    }

    /// The error that every call ends with.
    fn error(&self) -> StepError {
        let message = match self.variables {
            _ if self.message.is_some() => self.message.clone().unwrap_or_default(),
            [] => format!("the credential for `{}` is missing", self.name),
            names => {
                format!("the credential for `{}` is missing: set {}", self.name, names.join(" or "))
            }
        };
        let help = match self.variables {
            [] => "give the provider a credential, or run with --mock".to_owned(),
            names => format!("set {} where the run is started, or run with --mock", names.join(" or ")),
        };
        StepError::new(ErrorKind::Auth, message).help(help)
    }
}

#[async_trait]
impl Provider for Unavailable {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        backend::capabilities(&self.kind)
    }

    fn default_model(&self) -> &str {
        self.model.as_deref().unwrap_or_else(|| backend::default_model(&self.kind))
    }

    /// What a call would cost if there were a credential: a plan is read before one is set.
    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        if self.capabilities().agent {
            return WorstCase { tokens: u64::MAX, cost: Price::AsAllowed };
        }
        let model = request.model.as_deref().unwrap_or_else(|| self.default_model());
        let Ok(table) = PriceTable::built_in() else {
            return WorstCase { tokens: u64::MAX, cost: Price::Unknown };
        };
        let known = table.price(model).and_then(|price| price.max_output_tokens);
        let Some(output) = request.max_output_tokens.or(known) else {
            return WorstCase { tokens: u64::MAX, cost: Price::Unknown };
        };
        // Every token is at least one byte of what is sent.
        let sent = request.messages.iter().map(|message| message.text().len() as u64).sum::<u64>();
        WorstCase { tokens: sent + output, cost: table.at_most(model, sent, output) }
    }

    async fn start(&self, _request: &ModelRequest, _cx: &StepContext) -> Result<ModelStream, StepError> {
        Err(self.error())
    }
}
