//! The functions and tests of the language.
//!
//! Owns what [`install`] adds to the engine. Names that begin with `_` are hidden: `expr/write.rs` writes calls of them.
//! Whole numbers stay whole; what cannot be computed is an error, never a made-up value; everything that grows with its
//! input pays for it. For people they are described in `expr/reference.rs`.

pub(super) mod support;
mod times;
mod compare;
mod numbers;
mod path;
mod texts;
mod lists;
mod methods;

use minijinja::{Environment, State};

/// Adds functions and tests to an engine. `engine` makes one like it, with so much fuel.
pub(super) fn install(env: &mut Environment<'static>, engine: fn(u64) -> Environment<'static>) {
    env.add_function("_spent", |state: &State| state.fuel_levels().map_or(0, |(spent, _)| spent));
    path::install(env);
    compare::install(env);
    numbers::install(env);
    texts::install(env);
    lists::install(env, engine);
    times::install(env);
    env.set_unknown_method_callback(methods::call);
}
