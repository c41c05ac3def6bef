//! Live providers against servers on loopback: the mock server, and raw sockets that break every rule.

mod support;
mod untrusted;
mod vendor;
mod requests;
mod matrix;
mod told;
mod hazards;
