//! One bound on live calls, over all runs of the process.
//!
//! Owns [`Limited`], the layer that takes a permit of `Services::calls` for as long as a call goes on. Everything live is
//! wrapped in it exactly once; mocks are not. Must not know what it wraps.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Capabilities, ModelRequest, ModelStream, Provider, WorstCase};
use pipeline_core::step::StepContext;

/// A provider whose calls count against the limit of the process.
pub struct Limited(pub Arc<dyn Provider>);

#[async_trait]
impl Provider for Limited {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn default_model(&self) -> &str {
        self.0.default_model()
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        self.0.worst_case(request)
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let Some(calls) = &cx.services.calls else { return self.0.start(request, cx).await };
        let waiting = tokio::time::timeout_at(cx.deadline, Arc::clone(calls).acquire_owned());
        let permit = match waiting.await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_closed)) => {
                return Err(StepError::new(
                    ErrorKind::Cancelled,
                    "no more calls are made: the program is ending",
                ));
            }
            Err(_elapsed) => {
                let message = format!("the call of `{}` waited for others until its deadline", self.name());
                return Err(StepError::new(ErrorKind::TimedOut, message)
                    .help("let fewer steps run at once, or raise `timeout`"));
            }
        };
        let stream = self.0.start(request, cx).await?;
        // The permit lives in the stream: it is given back when the answer is complete or nobody wants it any more.
        Ok(Box::pin(stream.map(move |event| {
            let _held = &permit;
            event
        })))
    }
}
