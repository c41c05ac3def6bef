//! The engine: the embedded backend of the schedule. (In work.)

pub mod effect;
