//! Live providers against servers on loopback: the mock server, and raw sockets that break every rule.

mod support;
mod untrusted;
mod requests;
mod matrix;
mod hazards;
