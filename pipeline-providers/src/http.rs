//! Live providers over HTTP: one attempt, streamed, bounded in time and memory, never retried here.
//!
//! Owns [`HttpProvider`], which speaks any of the wire formats over one [`Transport`]. Reading order: `http/wire.rs` (what
//! a format has to say), `http/stream.rs` (how an answer is read), `http/anthropic.rs`, `http/gemini.rs`,
//! `http/openai.rs`. Must not know steps, the engine or the environment.

mod sse;
mod settings;
mod failure;
mod transport;
mod wire;
mod schema;
mod stream;
mod anthropic;
mod gemini;
mod openai;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Capabilities, Content, ModelRequest, ModelStream, Price, Provider, WorstCase};
use pipeline_core::step::StepContext;
use serde_json::Value;

use crate::backend;
use crate::http::failure::Fault;
use crate::http::wire::{Call, Wire};
use crate::prices::PriceTable;
use crate::rate::Account;

pub use anthropic::BatchEntry;
pub use settings::{Credential, HttpSettings, vendor_url};
pub use transport::Transport;

/// Tokens that a service may add to what it is sent: words around tools, schemas and turns.
const ADDED_TOKENS: u64 = 4096;

/// Tokens that an image can be, however few bytes it has.
const IMAGE_TOKENS: u64 = 8192;

/// Tokens that a byte of a compressed document can become: its text, and a picture of each page.
const DOCUMENT_TOKENS: u64 = 16;

/// Tokens of an answer whose length nothing bounds. Far beyond any model, and far below where sums overflow.
const UNBOUNDED: u64 = 1 << 40;

/// A service that is called over HTTP.
pub struct HttpProvider {
    settings: Arc<HttpSettings>,
    wire: Arc<dyn Wire>,
    transport: Arc<Transport>,
    prices: Arc<PriceTable>,
    default_model: String,
    account: Option<Arc<Account>>,
}

impl HttpProvider {
    /// A provider of the entry's kind; `None` when the kind is not one that is called over HTTP.
    pub fn new(settings: HttpSettings, transport: Arc<Transport>, prices: &PriceTable) -> Option<Self> {
        let wire: Arc<dyn Wire> = match settings.entry.kind.as_str() {
            "anthropic" => Arc::new(anthropic::Anthropic),
            "gemini" => Arc::new(gemini::Gemini),
            "openai" | "ollama" => Arc::new(openai::OpenAi),
            _ => return None,
        };
        let default_model = settings.entry.model.clone();
        let default_model =
            default_model.unwrap_or_else(|| backend::default_model(&settings.entry.kind).to_owned());
        let prices = Arc::new(prices.clone().with(&settings.entry.prices));
        Some(Self { settings: Arc::new(settings), wire, transport, prices, default_model, account: None })
    }

    /// Tells `account` what the service says of its limits.
    #[must_use]
    pub fn telling(mut self, account: Arc<Account>) -> Self {
        self.account = Some(account);
        self
    }

    fn call<'a>(&'a self, request: &'a ModelRequest) -> Call<'a> {
        let named = request.model.as_deref().unwrap_or(&self.default_model);
        let known = self.prices.price(named).and_then(|p| p.max_output_tokens);
        let most_output =
            request.max_output_tokens.or(self.settings.entry.limits.max_output_tokens).or(known);
        // An alias is one of the vendor's own names.
        let model =
            if self.settings.entry.kind == "anthropic" { self.prices.full_name(named) } else { named };
        Call { request, model, most_output }
    }

    /// The request as it is sent, without its headers.
    ///
    /// # Errors
    /// `Unsupported` and `Invalid` for what the service cannot be asked.
    pub fn body(&self, request: &ModelRequest) -> Result<Value, StepError> {
        let options = self.capabilities().options;
        wire::check(request, options, self.name())?;
        self.wire.body(&self.call(request), &self.settings)
    }

    /// The request as an entry of a batch; `None` for services without batches of this form.
    ///
    /// # Errors
    /// As [`HttpProvider::body`].
    pub fn batch_entry(
        &self,
        custom_id: &str,
        request: &ModelRequest,
    ) -> Option<Result<BatchEntry, StepError>> {
        let is_anthropic = self.settings.entry.kind == "anthropic";
        is_anthropic.then(|| self.body(request).map(|body| BatchEntry::new(custom_id, body)))
    }
}

#[async_trait]
impl Provider for HttpProvider {
    fn name(&self) -> &str {
        &self.settings.entry.name
    }

    fn capabilities(&self) -> Capabilities {
        backend::capabilities(&self.settings.entry.kind)
    }

    fn default_model(&self) -> &str {
        &self.default_model
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        let call = self.call(request);
        // Every token is at least one byte of what is sent. A request that cannot be written is refused and costs nothing.
        let Ok(body) = self.wire.body(&call, &self.settings) else {
            return WorstCase { tokens: 0, cost: Price::AtMost(0.0) };
        };
        let sent = u64::try_from(body.to_string().len()).unwrap_or(UNBOUNDED);
        let input = sent + ADDED_TOKENS + media_tokens(request);
        // What the request itself says binds the service, whatever this program believes of the model.
        let output = self.wire.most_output(&body).or(call.most_output).unwrap_or(UNBOUNDED);
        WorstCase { tokens: input + output, cost: self.prices.at_most(call.model, input, output) }
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let body = self.body(request)?;
        let call = self.call(request);
        let fail = |fault: Fault| fault.into_error(&self.settings);
        let bytes = serde_json::to_vec(&body).map_err(|error| {
            StepError::new(
                ErrorKind::Internal,
                format!("the request of `{}` cannot be written: {error}", self.name()),
            )
        })?;
        let base = self.settings.base_url();
        let url = format!("{base}{}", self.wire.path(base, call.model));
        let mut headers = self.wire.headers(&self.settings.credential);
        headers.extend(
            self.settings.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())),
        );
        let step = cx.key.path.as_str();
        if self.settings.is_local() && !step.chars().any(char::is_control) {
            headers.push((backend::STEP_HEADER.to_owned(), step.to_owned()));
        }
        let mut clock = stream::Clock::new(cx.deadline, &self.settings);
        let response = clock.first(self.transport.post(&url, headers, bytes)).await.map_err(fail)?;
        let answer = stream::Answer {
            reader: self.wire.reader(call.model),
            wire: Arc::clone(&self.wire),
            settings: Arc::clone(&self.settings),
            prices: Arc::clone(&self.prices),
            model: call.model.to_owned(),
            account: self.account.clone(),
        };
        answer.events(response, clock).await
    }
}

fn media_tokens(request: &ModelRequest) -> u64 {
    let contents = request.messages.iter().flat_map(|m| &m.content);
    contents
        .map(|content| match content {
            Content::Media { media_type, .. } if media_type.starts_with("image/") => IMAGE_TOKENS,
            Content::Media { data, .. } => {
                IMAGE_TOKENS + DOCUMENT_TOKENS * u64::try_from(data.len()).unwrap_or(u64::MAX / 32)
            }
            _ => 0,
        })
        .sum()
}
