//! The HTTP client of tools.
//!
//! Owns [`builder`]: what all of them have in common. Must not know what is fetched.

use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// A client that follows nobody and takes no settings from the surroundings.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    // Whoever is first in this process decides; all of ours decide the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
}
