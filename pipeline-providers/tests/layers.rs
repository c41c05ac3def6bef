//! Layers around providers: what every one of them must leave as it is, and what each adds.

mod breaker;
mod conformance;
mod governor;
mod support;
