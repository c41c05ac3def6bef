//! The step `prompt`: asks a model, and makes sure of the answer.
//!
//! Owns the conversation of one attempt: the first question, the tools the model calls, the repairs of an answer that
//! does not fit its schema. Every call of a model or a tool is an effect, so that a crash pays for none twice.
//! Must not know vendors; retries between attempts are the schedule's.
//! Next: `prompt/config.rs` (what can be asked), `prompt/parts.rs` (the text), `prompt/conversation.rs` (the asking),
//! `prompt/answer.rs` (its JSON), `prompt/session.rs` (what outlives the step).

// Declaration order is reading order: from leaf to root.
mod answer;
mod extraction;
mod part;
mod pick;
mod expect;
mod config;
mod session;
mod kept;
mod files;
mod parts;
mod request;
mod conversation;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod outside_tests;

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::Data;

use crate::file_cache::FileCache;
use crate::prompt::config::{Config, KeepAnswer};
use crate::prompt::conversation::Conversation;
use crate::prompt::part::PromptText;
use crate::prompt::parts::Reader;

/// The step type `prompt`.
pub struct Prompt {
    files: Arc<FileCache>,
}

impl Prompt {
    /// A step that reads the files of its parts through `files`.
    pub fn new(files: Arc<FileCache>) -> Self {
        Self { files }
    }
}

#[async_trait]
impl Step for Prompt {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "prompt",
            summary: "Asks a model and gives its answer, as text and, where it is JSON, as data.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let mut config = Config::decode(with.json())?;
        let provider = request::provider(cx, config.provider.as_ref())?;
        let prompt = std::mem::replace(&mut config.prompt, PromptText::Text(String::new()));
        let able = provider.capabilities();
        let reader = Reader { provider: provider.name(), able: &able, simplify: config.simplify };
        let asked = parts::asked(cx, &self.files, prompt, &reader).await?;
        let system = config.system_prompt.as_ref().map(|t| t.0.as_str());
        let keep = config.keep_answer.map(|keep| (keep, kept::name(cx, &asked.content, system)));
        if let Some((KeepAnswer::Load, name)) = &keep {
            return Box::pin(kept::load(cx, name)).await;
        }
        let conversation = Box::new(Conversation::new(cx, Arc::clone(&provider), config).await?);
        let output = conversation.run(asked).await?;
        if let Some((_, name)) = &keep {
            Box::pin(kept::save(cx, name, &output.value)).await?;
        }
        Ok(output)
    }
}

const EXAMPLE: &str = "\
workflow:
  name: prompt_example
  steps:
    - name: rate
      type: prompt
      provider: claude
      prompt:
        - type: static
          content: 'Rate this sentence from 1 to 10:'
        - type: static
          content: The quick brown fox jumps over the lazy dog.
      output_schema:
        type: object
        required: [score]
        properties:
          score: { type: integer, minimum: 1, maximum: 10 }
    - name: explain
      type: prompt
      provider: claude
      prompt: 'Why is it {{ steps.rate.score }} out of 10?'
";
