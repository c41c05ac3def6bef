//! A model provider of one's own: `cargo run -p pipeline-providers --example define_a_provider`.

use async_trait::async_trait;
use pipeline_core::catalog::Services;
use pipeline_core::error::StepError;
use pipeline_core::provider::{
    Capabilities, Message, ModelAnswer, ModelRequest, ModelStream, Price, Provider, WorstCase,
};
use pipeline_core::step::StepContext;
use pipeline_providers::{MockProvider, MockRules};

struct Parrot;

#[async_trait]
impl Provider for Parrot {
    fn name(&self) -> &'static str {
        "parrot"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn default_model(&self) -> &'static str {
        "parrot-1"
    }

    fn worst_case(&self, _: &ModelRequest) -> WorstCase {
        WorstCase { tokens: 0, cost: Price::AtMost(0.0) }
    }

    async fn start(&self, request: &ModelRequest, _: &StepContext) -> Result<ModelStream, StepError> {
        let heard = request.messages.last().map(Message::text).unwrap_or_default();
        Ok(ModelAnswer::new("parrot-1", heard).into_stream())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cx = StepContext::detached(Services::default());
    let request = ModelRequest { messages: vec![Message::user("pretty Polly")], ..ModelRequest::default() };
    assert_eq!(Parrot.complete(&request, &cx).await?.text, "pretty Polly");

    // The scripted mock is a provider like any other.
    let rules = MockRules::parse("rules: [{ text: 'no crackers' }]", "rules.yaml")?;
    let mock = MockProvider::new("claude", rules.into());
    assert_eq!(mock.complete(&request, &cx).await?.text, "no crackers");
    Ok(())
}
