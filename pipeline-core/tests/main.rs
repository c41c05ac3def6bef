//! The language by its cases; the engine and the schedule from the outside, on scripted steps and a store in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "expr/cases.rs"]
mod cases;
#[path = "expr/fuzz.rs"]
mod expr_fuzz;
#[path = "engine/by_hand.rs"]
mod by_hand;
#[path = "engine/control.rs"]
mod control;
#[path = "engine/embedding.rs"]
mod embedding;
#[path = "engine/fan_out.rs"]
mod fan_out;
#[path = "engine/fuzz.rs"]
mod fuzz;
#[path = "engine/hand.rs"]
mod hand;
#[path = "engine/hazards.rs"]
mod hazards;
#[path = "plan/keys.rs"]
mod keys;
#[path = "engine/lasting.rs"]
mod lasting;
#[path = "plan/loops.rs"]
mod loops;
#[path = "plan/origins.rs"]
mod origins;
#[path = "engine/resources.rs"]
mod resources;
#[path = "engine/limits.rs"]
mod limits;
#[path = "engine/money.rs"]
mod money;
#[path = "engine/names.rs"]
mod names;
#[path = "engine/nesting.rs"]
mod nesting;
#[path = "engine/outside.rs"]
mod outside;
#[path = "engine/observers.rs"]
mod observers;
#[path = "engine/replay.rs"]
mod replay;
#[path = "engine/resume.rs"]
mod resume;
#[path = "engine/shapes.rs"]
mod shapes;
#[path = "engine/support.rs"]
mod support;
