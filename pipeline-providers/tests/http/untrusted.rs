//! A server whose certificate nobody vouches for.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// Made for this test and worth nothing.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUVAmc8ousjhv6pskQJCBmtt2OzEwwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNTIxNTIxNVoYDzIxMjYxMTAx
MjE1MjE1WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT4HZ6kKtNgFMzeVD7YlaQQEAs6xu7bvF5DbGD4crVk5NiRYYN/qAAs
DtrRfTNSnUT81Yrtu7wCCLRs8UV5zKSao2QwYjAdBgNVHQ4EFgQU8ZPUa72koEFB
sppi0UoyIUiHhdMwHwYDVR0jBBgwFoAU8ZPUa72koEFBsppi0UoyIUiHhdMwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IQDRzTtw2xbgssd7xUmO7ZAyOhDxaR4e4JXwOKUqV3HaAgIgNrY+gZOCZiBsbwXj
rWLhxX4XGz2c9OEVROxsMM3U07Y=
-----END CERTIFICATE-----";
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBYg/XhAZXFWUfFx3
y8bcEZJyUisaFLJ3ui5hqg/EWDahRANCAAT4HZ6kKtNgFMzeVD7YlaQQEAs6xu7b
vF5DbGD4crVk5NiRYYN/qAAsDtrRfTNSnUT81Yrtu7wCCLRs8UV5zKSa
-----END PRIVATE KEY-----";

/// Where it listens, until the test ends.
pub fn untrusted() -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "a server that lives as long as the test")]
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client goes in the middle of it.
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
        }
    });
    url
}
