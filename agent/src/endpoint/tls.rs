//! The certificate that the endpoint shows: read again when its file is another, since certificates are renewed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// A certificate and its key.
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    /// What was read last, and when its file was changed then.
    read: Mutex<(Option<SystemTime>, Arc<ServerConfig>)>,
}

impl Tls {
    /// Reads both.
    ///
    /// # Errors
    /// Says which file is not what it should be.
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Tls, String> {
        crate::tls::ensure_provider();
        let (cert, key) = (cert.to_owned(), key.to_owned());
        let read = (changed(&cert), read(&cert, &key)?);
        Ok(Tls { cert, key, read: Mutex::new(read) })
    }

    /// Returns what agrees on TLS with one client.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&self.cert);
        if changed != last.0 {
            match read(&self.cert, &self.key) {
                Ok(config) => {
                    info!(path = %self.cert.display(), "the endpoint shows another certificate from now on");
                    last.1 = config;
                }
                Err(why) => warn!("the endpoint goes on showing the certificate that it has: {why}"),
            }
            last.0 = changed;
        }
        TlsAcceptor::from(Arc::clone(&last.1))
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let off = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(|error| off(cert, &error))?.collect();
    let chain = chain.map_err(|error| off(cert, &error))?;
    if chain.is_empty() {
        return Err(off(cert, &"it holds no certificate (PEM, `-----BEGIN CERTIFICATE-----`)"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| off(key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| format!("{} and {} do not go together: {error}", cert.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
