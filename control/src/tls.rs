//! TLS of the listeners: one certificate and key, from PEM files.
//!
//! rustls with the ring provider: TLS 1.2 and 1.3, nothing older. The files are read at start.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;

/// Where certificate and key are.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and those between it and the root, in PEM.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Why TLS can't be served, or no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no such file, or it can't be read.
    #[error("can't read the TLS {what} {}: {source}", path.display())]
    Read {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds nothing of the kind.
    #[error("{} holds no {what} in PEM (-----BEGIN …-----): {reason}", path.display())]
    NotPem {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The two do not belong together.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// They can't be used.
    #[error("can't serve TLS with {} and {}: {reason}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate can't be trusted.
    #[error("can't trust the certificates in {}: {reason}", path.display())]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file that would be overwritten.
    #[error("{} exists already and is never overwritten: choose another directory, or remove it", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A file can't be written.
    #[error("can't write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No certificate can be made for these names.
    #[error("can't make a certificate: {0}")]
    Make(String),
}

/// Reads certificate and key, and checks that they can be used together.
///
/// # Errors
/// [`TlsError`], each naming the file.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let text = read("certificate", &files.cert)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem("certificate", &files.cert, &error))?;
    if chain.is_empty() {
        return Err(not_pem("certificate", &files.cert, &pem::Error::NoItemsFound));
    }
    let text = read("private key", &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| not_pem("private key", &files.key, &error))?;
    let unusable = |error: rustls::Error| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            return TlsError::Mismatch { cert, key };
        }
        TlsError::Unusable { cert, key, reason: error.to_string() }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts servers whose certificate is in `ca`, or was signed by one of those. TLS 1.2 and 1.3.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn trust(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    const WHAT: &str = "certificate";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(WHAT, ca)?) {
        let certificate = certificate.map_err(|error| not_pem(WHAT, ca, &error))?;
        let unusable = |error: rustls::Error| TlsError::Untrusted { path: ca.to_owned(), reason: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(not_pem(WHAT, ca, &pem::Error::NoItemsFound));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Untrusted { path: ca.to_owned(), reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Makes a certificate that signs itself, for `names` (host names and addresses; `localhost` and the loopback
/// addresses if there are none), and writes `cert.pem` and `key.pem` into `directory`, which is made if it is missing.
/// The key is of mode 0600. It is for tests and closed networks: clients have to be told to trust it.
///
/// # Errors
/// One of the files exists or can't be written, or a name is none.
pub fn make_certificate(directory: &Path, names: &[String]) -> Result<TlsFiles, TlsError> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let names = if names.is_empty() { local } else { names.to_vec() };
    let make = |error: rcgen::Error| TlsError::Make(error.to_string());
    let mut params = CertificateParams::new(names.clone()).map_err(make)?;
    params.distinguished_name = DistinguishedName::new();
    // The longest common name (X.520): clients look at the alternative names only.
    let common_name = names.iter().find(|name| name.len() <= 64).map_or("ringbridge", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = jiff::Timestamp::now();
    let day = |offset: i64| {
        let date = (now + jiff::SignedDuration::from_hours(24 * offset)).to_zoned(jiff::tz::TimeZone::UTC).date();
        (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let ((from_year, from_month, from_day), (to_year, to_month, to_day)) = (day(-1), day(VALID_DAYS));
    params.not_before = rcgen::date_time_ymd(from_year, from_month, from_day);
    params.not_after = rcgen::date_time_ymd(to_year, to_month, to_day);
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.self_signed(&key).map_err(make)?;
    let files = TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::create_dir_all(directory).map_err(|source| TlsError::Write { path: directory.to_owned(), source })?;
    // Nothing is written if one of the two is there.
    if files.cert.exists() {
        return Err(TlsError::Exists { path: files.cert });
    }
    write_new(&files.key, &key.serialize_pem(), 0o600)?;
    write_new(&files.cert, &certificate.pem(), 0o644)?;
    Ok(files)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn not_pem(what: &'static str, path: &Path, error: &pem::Error) -> TlsError {
    TlsError::NotPem { what, path: path.to_owned(), reason: error.to_string() }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists {
            return TlsError::Exists { path };
        }
        TlsError::Write { path, source }
    })
}

/// How long a certificate made here is valid: some clients refuse more.
const VALID_DAYS: i64 = 825;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_can_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("tls");
        let names = ["media.example".to_owned(), "192.0.2.10".to_owned()];
        let files = make_certificate(&at, &names).unwrap();
        load(&files).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.key), 0o600);
        assert_eq!(mode(&files.cert) & 0o400, 0o400);
        let before = std::fs::read(&files.key).unwrap();
        for kept in [&files.cert, &files.key] {
            let other = if kept == &files.cert { &files.key } else { &files.cert };
            let moved = other.with_extension("moved");
            std::fs::rename(other, &moved).unwrap();
            assert!(matches!(make_certificate(&at, &names), Err(TlsError::Exists { path }) if path == *kept));
            assert!(!other.exists(), "nothing is written beside it");
            std::fs::rename(&moved, other).unwrap();
        }
        assert_eq!(std::fs::read(&files.key).unwrap(), before);
        assert!(matches!(make_certificate(dir.path(), &["ö".to_owned()]), Err(TlsError::Make(_))));
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let good = make_certificate(&dir.path().join("a"), &[]).unwrap();
        let other = make_certificate(&dir.path().join("b"), &[]).unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "nothing of the kind").unwrap();
        let missing = dir.path().join("missing");
        let error =
            |cert: &Path, key: &Path| load(&TlsFiles { cert: cert.to_owned(), key: key.to_owned() }).unwrap_err();
        assert!(matches!(error(&missing, &good.key), TlsError::Read { what: "certificate", .. }));
        assert!(matches!(error(&good.cert, &missing), TlsError::Read { what: "private key", .. }));
        assert!(matches!(error(dir.path(), &good.key), TlsError::Read { .. }));
        assert!(matches!(error(&text, &good.key), TlsError::NotPem { what: "certificate", .. }));
        assert!(matches!(error(&good.cert, &text), TlsError::NotPem { what: "private key", .. }));
        assert!(trust(&good.cert).is_ok());
        assert!(matches!(trust(&missing), Err(TlsError::Read { what: "certificate", .. })));
        for none in [&text, &good.key] {
            assert!(matches!(trust(none), Err(TlsError::NotPem { what: "certificate", .. })));
        }
        // The two files the wrong way round.
        assert!(matches!(error(&good.key, &good.cert), TlsError::NotPem { what: "certificate", .. }));
        let mismatch = error(&good.cert, &other.key);
        assert!(matches!(mismatch, TlsError::Mismatch { .. }));
        assert!(mismatch.to_string().contains("does not belong"), "{mismatch}");
        let broken = std::fs::read_to_string(&good.cert).unwrap();
        std::fs::write(&text, broken.lines().take(3).collect::<Vec<_>>().join("\n")).unwrap();
        assert!(matches!(error(&text, &good.key), TlsError::NotPem { .. }));
    }
}
