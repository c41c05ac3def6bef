//! Locks that a model checker can drive.
//!
//! parking_lot's, where code of more than one thread is worth a model: the ledger, the registry of tools, the journal's group
//! commit, sessions. `cargo xtask models` builds them with `--cfg shuttle`, and then every lock is a place where the checker
//! may let another thread go first.

#[cfg(shuttle)]
pub mod models;

#[cfg(not(shuttle))]
pub use parking_lot::{Mutex, RwLock};
#[cfg(shuttle)]
pub use shuttle_parking_lot_impl::{Mutex, RwLock};
