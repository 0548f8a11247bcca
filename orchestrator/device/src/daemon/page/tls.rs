//! The page's own certificate: nobody vouches for it, so a person compares its fingerprint.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::doors::disk;

/// For how long one is made: browsers refuse longer ones.
const LIFE: Duration = Duration::from_secs(800 * 86_400);
/// How long before its end another one is made.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// The file, beside the device's others.
const FILE: &str = "page.json";

#[derive(Serialize, Deserialize)]
struct Saved {
    certificate: String,
    key: String,
    ends_s: u64,
}

/// A certificate, with what makes it ours.
pub struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The names under which this machine may be asked.
pub fn names() -> Vec<String> {
    let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let own = own.trim_end_matches('.').to_owned();
    let mut names = vec!["localhost".to_owned()];
    if own.is_empty() || own == "localhost" {
        return names;
    }
    if !own.contains('.') {
        names.extend(["local", "lan", "home.arpa"].map(|zone| format!("{own}.{zone}")));
    }
    names.push(own);
    names
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Identity {
    /// The one of a device's folder; made if there is none, or it ends soon.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let soon = now_s() + RENEW_BEFORE.as_secs();
        // One that cannot be read is as good as none: it opens nothing but this page.
        let saved = disk::read_json::<Saved>(&path).ok().flatten().filter(|saved| soon < saved.ends_s);
        if let Some(saved) = saved
            && let (Ok(certificate), Ok(key)) =
                (STANDARD.decode(&saved.certificate), STANDARD.decode(&saved.key))
        {
            return Ok(Self { certificate, key });
        }
        let made = Self::make().map_err(io::Error::other)?;
        let saved = Saved {
            certificate: STANDARD.encode(&made.certificate),
            key: STANDARD.encode(&made.key),
            ends_s: now_s() + LIFE.as_secs(),
        };
        disk::replace_json(&path, &saved)?;
        Ok(made)
    }

    fn make() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let names = names();
        let mut called = DistinguishedName::new();
        called.push(DnType::CommonName, names.last().map_or("device", String::as_str));
        called.push(DnType::OrganizationName, "Comb, a device's own page");
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = called;
        let now = SystemTime::now();
        // A clock that is a little behind is no reason to refuse it.
        params.not_before = (now - Duration::from_secs(86_400)).into();
        params.not_after = (now + LIFE).into();
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(&self.certificate);
        let mut text = String::with_capacity(digest.len() * 3);
        for (at, byte) in digest.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            let _ = write!(text, "{colon}{byte:02X}");
        }
        text
    }

    /// What connections are accepted with.
    pub fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let certificates = vec![CertificateDer::from(self.certificate.clone())];
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
