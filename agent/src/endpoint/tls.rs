//! The certificate that the endpoint shows: read again when its file is another, since certificates are renewed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// A certificate and its key.
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    /// What was read last, and what its files were then.
    read: Mutex<([Option<Stamp>; 2], Arc<ServerConfig>)>,
}

/// What tells one state of a file from another. A renewal may write in place, rename, or point a link elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Tls {
    /// Reads both.
    ///
    /// # Errors
    /// Says which file is not what it should be.
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Tls, String> {
        crate::tls::ensure_provider();
        let (cert, key) = (cert.to_owned(), key.to_owned());
        let read = (stamps(&cert, &key), read(&cert, &key)?);
        Ok(Tls { cert, key, read: Mutex::new(read) })
    }

    /// Returns what agrees on TLS with one client. Both files count: who renews them writes one after the other, and what
    /// does not go together in between is no reason to keep the old pair for longer than that.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.cert, &self.key);
        if stamps != last.0 {
            match read(&self.cert, &self.key) {
                Ok(config) => {
                    info!(path = %self.cert.display(), "the endpoint shows another certificate from now on");
                    last.1 = config;
                }
                Err(why) => warn!("the endpoint goes on showing the certificate that it has: {why}"),
            }
            last.0 = stamps;
        }
        TlsAcceptor::from(Arc::clone(&last.1))
    }
}

fn stamps(cert: &Path, key: &Path) -> [Option<Stamp>; 2] {
    [cert, key].map(|path| {
        let seen = fs::metadata(path).ok()?;
        Some(Stamp { inode: seen.ino(), size: seen.size(), changed: (seen.ctime(), seen.ctime_nsec()) })
    })
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
