//! Names of OpenTelemetry's semantic conventions, version 1.37.0, and of what is ours.
//!
//! The conventions for models are still in development, so their names stand here and nowhere else.

/// Where the names are defined.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// What a model call does.
pub const OPERATION: &str = "gen_ai.operation.name";
/// Whose service it calls.
pub const PROVIDER: &str = "gen_ai.provider.name";
/// The model that answered.
pub const MODEL: &str = "gen_ai.response.model";
/// Tokens sent.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Tokens received.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Input or output.
pub const TOKEN_TYPE: &str = "gen_ai.token.type";
/// Histogram of tokens a call.
pub const TOKEN_USAGE: &str = "gen_ai.client.token.usage";
/// Histogram of seconds a call.
pub const DURATION: &str = "gen_ai.client.operation.duration";
/// What kind of error it was.
pub const ERROR_TYPE: &str = "error.type";

/// Bounds of token histograms, as the conventions advise.
pub const TOKEN_BOUNDS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Bounds of histograms of seconds, as the conventions advise.
pub const SECOND_BOUNDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Our names.
pub mod ours {
    /// The run.
    pub const RUN: &str = "pipeline.run.id";
    /// The workflow.
    pub const WORKFLOW: &str = "pipeline.workflow";
    /// A step instance.
    pub const PATH: &str = "pipeline.step.path";
    /// A physical attempt.
    pub const ATTEMPT: &str = "pipeline.step.attempt";
    /// How something ended.
    pub const STATUS: &str = "pipeline.status";
    /// US dollars.
    pub const COST: &str = "pipeline.cost_usd";
    /// Histogram of seconds an attempt, by place of the file.
    pub const STEP_DURATION: &str = "pipeline.step.duration";
}

/// The name that the conventions have for one of our providers; others keep theirs.
pub fn provider(name: &str) -> &str {
    match name {
        "claude" | "anthropic" => "anthropic",
        "gemini" => "gcp.gemini",
        other => other,
    }
}
