//! Tests of the tools through their public API.
