//! The layer that keeps calls within an account's limits.
//!
//! Owns [`Governed`]. A call waits for its turn, is made once, and what it really used is settled. Never retries. Must not
//! know what it wraps. Next: `rate.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{Capabilities, ModelEvent, ModelRequest, ModelStream, Provider, WorstCase};
use pipeline_core::step::StepContext;

use crate::rate::{Account, Permit, Want};

/// How long others wait after a refusal that names no time.
const HOLD: Duration = Duration::from_secs(1);

/// Bytes of a request that are taken for one token until answers have told better. Too few, rather than calls that are
/// refused.
const BYTES_A_TOKEN: u64 = 2;

/// A provider whose calls keep to the limits of an account.
pub struct Governed<P: ?Sized> {
    account: Arc<Account>,
    inner: Arc<P>,
}

impl<P: Provider + ?Sized> Governed<P> {
    /// `inner`, called within the limits of `account`.
    pub fn new(inner: Arc<P>, account: Arc<Account>) -> Self {
        Self { account, inner }
    }

    fn want(&self, request: &ModelRequest) -> Want {
        let mut bytes = Length(0);
        // A request that cannot be written is refused by whoever writes it.
        let _ = serde_json::to_writer(&mut bytes, request);
        Want {
            requests: 1,
            input: bytes.0 / BYTES_A_TOKEN,
            output: request.max_output_tokens.unwrap_or(u64::MAX),
            is_counted: !self.inner.capabilities().agent,
        }
    }

    /// An error of a call: what it tells of the limits, and whether the call counts.
    fn hear(&self, error: &StepError, permit: &mut Permit) {
        let after = error.retry_after_ms.map(Duration::from_millis);
        match error.kind {
            ErrorKind::RateLimited => {
                permit.settle(None);
                self.account.hold(after.unwrap_or(HOLD), false);
            }
            ErrorKind::Quota => {
                permit.settle(None);
                if let Some(after) = after {
                    self.account.hold(after, true);
                }
            }
            _ => {}
        }
    }
}

/// Counts what is written, and keeps nothing of it.
struct Length(u64);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What counts against the limits.
fn used(usage: &Usage, cache_is_unlimited: bool) -> Want {
    let input = if cache_is_unlimited { usage.input.saturating_add(usage.cache_write) } else { usage.sent() };
    Want { requests: 1, input, output: usage.output, is_counted: true }
}

#[async_trait]
impl<P: Provider + ?Sized + 'static> Provider for Governed<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn default_model(&self) -> &str {
        self.inner.default_model()
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        self.inner.worst_case(request)
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let mut permit = self.account.acquire(self.want(request), cx.deadline, &cx.cancel).await?;
        let stream = match self.inner.start(request, cx).await {
            Ok(stream) => stream,
            Err(error) => {
                self.hear(&error, &mut permit);
                return Err(error);
            }
        };
        let cache_is_unlimited = self.inner.capabilities().cache_is_unlimited;
        let layer = Self { account: Arc::clone(&self.account), inner: Arc::clone(&self.inner) };
        // The permit lives in the stream: it ends when the answer is complete or nobody wants it any more.
        Ok(Box::pin(stream.map(move |event| {
            match &event {
                Ok(ModelEvent::Finished(answer)) => {
                    permit.settle(Some(used(&answer.usage, cache_is_unlimited)));
                }
                Err(error) => layer.hear(error, &mut permit),
                Ok(_) => {}
            }
            event
        })))
    }
}
