//! A provider that does what a test says, and remembers what was done to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{
    Capabilities, ModelAnswer, ModelEvent, ModelRequest, ModelStream, Price, Provider, WorstCase,
};
use pipeline_core::step::StepContext;

type Work = dyn Fn(usize) -> BoxFuture<'static, Result<ModelAnswer, StepError>> + Send + Sync;

/// A provider whose calls are numbered from 0 and answered by a closure.
pub struct Scripted {
    work: Box<Work>,
    pub starts: AtomicUsize,
    pub open: Arc<AtomicUsize>,
    /// What [`Capabilities`] say of it.
    pub cache_is_unlimited: AtomicBool,
}

/// Counts streams that are there.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Scripted {
    pub fn new<F>(work: impl Fn(usize) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<ModelAnswer, StepError>> + Send + 'static,
    {
        let work = Box::new(move |call| Box::pin(work(call)) as BoxFuture<'static, _>);
        Arc::new(Self {
            work,
            starts: AtomicUsize::new(0),
            open: Arc::default(),
            cache_is_unlimited: AtomicBool::new(false),
        })
    }

    /// One that answers `ok` after a while.
    pub fn slow(ms: u64) -> Arc<Self> {
        Self::new(move |_| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(answer(10, 5))
        })
    }

    /// One that fails in that way.
    pub fn failing(kind: ErrorKind) -> Arc<Self> {
        Self::new(move |_| async move { Err(StepError::new(kind, "it broke")) })
    }

    pub fn calls(&self) -> usize {
        self.starts.load(SeqCst)
    }
}

pub fn answer(input: u64, output: u64) -> ModelAnswer {
    ModelAnswer {
        text: "ok".to_owned(),
        model: "m".to_owned(),
        usage: Usage { input, output, calls: 1, ..Usage::default() },
        stop_reason: "end_turn".to_owned(),
        session_id: None,
        function_calls: Vec::new(),
        content: Vec::new(),
        request_id: Some("req".to_owned()),
        warnings: vec!["careful".to_owned()],
        files: BTreeMap::new(),
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        let cache_is_unlimited = self.cache_is_unlimited.load(SeqCst);
        Capabilities { functions: true, options: &["one"], cache_is_unlimited, ..Capabilities::default() }
    }

    fn default_model(&self) -> &'static str {
        "big"
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        WorstCase { tokens: request.max_output_tokens.unwrap_or(7), cost: Price::AtMost(0.5) }
    }

    async fn start(&self, _request: &ModelRequest, _cx: &StepContext) -> Result<ModelStream, StepError> {
        let number = self.starts.fetch_add(1, SeqCst);
        self.open.fetch_add(1, SeqCst);
        let open = Open(Arc::clone(&self.open));
        let work = (self.work)(number);
        let first = [ModelEvent::Note("begins".to_owned()), ModelEvent::TextDelta("ok".to_owned())];
        let last = stream::once(async move {
            let _held = open;
            work.await.map(|answer| ModelEvent::Finished(Box::new(answer)))
        });
        Ok(Box::pin(stream::iter(first.map(Ok)).chain(last)))
    }
}
