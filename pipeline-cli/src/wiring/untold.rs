//! A program without telemetry: the same door, with nothing behind it.

use pipeline_core::event::EventSink;

use crate::settings::Settings;

/// Sends nothing.
#[derive(Clone, Default)]
pub struct Telemetry;

impl Telemetry {
    /// Nothing, whatever the environment names.
    pub fn of(_settings: &Settings) -> Self {
        Self
    }

    /// No observer.
    pub fn sink(&self, _run: &str, _workflow: &str) -> Option<Box<dyn EventSink>> {
        None
    }

    /// Nothing that could go wrong.
    pub fn trouble(&self) -> Option<String> {
        None
    }
}
