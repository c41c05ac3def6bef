//! The engine and the schedule from the outside, on scripted steps and a store in memory.

#[path = "engine/control.rs"]
mod control;
#[path = "engine/hazards.rs"]
mod hazards;
#[path = "engine/resume.rs"]
mod resume;
#[path = "engine/support.rs"]
mod support;
