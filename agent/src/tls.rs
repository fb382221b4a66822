//! One TLS library for every client of this process.

/// Sees to it that there is one before a client is built.
pub fn ensure_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread was faster to install the same provider");
    }
}
