//! TLS to PostgreSQL: what the address of a database says of it, and how it is spoken.
//!
//! | `sslmode` | what it does |
//! |---|---|
//! | none, `disable` | plain |
//! | `require` | TLS, with whoever answers |
//! | `verify-ca` | TLS, with whoever has a certificate of a root that is trusted |
//! | `verify-full` | the same, and the certificate is for the host that the address names |
//!
//! Roots are those of the system, or those in the file of `sslrootcert`.
//!
//! Invariants
//! - Where an `sslmode` other than `disable` is given, nothing but the question for TLS is sent in plain.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use crate::server::fail::Fail;

/// What is checked of whoever answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Nothing,
    Root,
    RootAndName,
}

/// Reads the address of a database: where it is, and how it is spoken to; none is in plain.
pub(super) fn parse(url: &str) -> Result<(Config, Option<Tls>), Fail> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let kept = match key {
            "sslmode" => &mut mode,
            "sslrootcert" => &mut roots,
            "sslnegotiation" => {
                rest.push(pair);
                continue;
            }
            "channel_binding" if value == "require" => {
                return Err(Fail::start(
                    "channel_binding=require is not built; leave it away: sslmode=verify-full says who answers",
                ));
            }
            _ if key.starts_with("ssl") => {
                return Err(Fail::start(format!(
                    "this comb does not know \"{key}\" of a database's address; it knows sslmode and sslrootcert"
                )));
            }
            _ => {
                rest.push(pair);
                continue;
            }
        };
        if kept.replace(decoded(value)).is_some() {
            return Err(Fail::start(format!("the address of the database says {key} twice")));
        }
    }
    let checked = match (mode.as_deref(), &roots) {
        (None | Some("disable"), None) => None,
        (None | Some("disable"), Some(_)) => {
            return Err(Fail::start(
                "sslrootcert says nothing without an sslmode that looks at it; add sslmode=verify-full",
            ));
        }
        (Some("require"), None) => Some(Checked::Nothing),
        (Some("require"), Some(_)) => {
            return Err(Fail::start(
                "sslmode=require looks at no certificate, so sslrootcert says nothing; use sslmode=verify-full",
            ));
        }
        (Some("verify-ca"), _) => Some(Checked::Root),
        (Some("verify-full"), _) => Some(Checked::RootAndName),
        (Some("allow" | "prefer"), _) => {
            return Err(Fail::start(
                "sslmode allow and prefer would speak in plain with whoever asks for it; use sslmode=verify-full, or sslmode=disable where nobody else can listen",
            ));
        }
        (Some(_), _) => {
            return Err(Fail::start(
                "the database's address has an sslmode that nobody knows; one of disable, require, verify-ca, verify-full",
            ));
        }
    };
    let place = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
    let mut config: Config = place.parse().map_err(|_| {
        // The address may hold a password, so it is not repeated.
        Fail::start("the address of the database is not one that PostgreSQL's clients read")
    })?;
    config.ssl_mode(if checked.is_some() { SslMode::Require } else { SslMode::Disable });
    let roots = roots.filter(|file| file != "system");
    Ok((config, checked.map(|checked| Tls::new(checked, roots.as_deref())).transpose()?))
}

/// A value of an address, in which bytes may be written as `%2F`. As PostgreSQL's clients read it, unlike the console's forms:
/// a plus is itself, and what is no number stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a database is spoken to that is not spoken to in plain.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    fn new(checked: Checked, roots: Option<&str>) -> Result<Self, Fail> {
        let wrong = |error: &dyn std::fmt::Display| {
            let place = roots.unwrap_or("the system's root certificates");
            Fail::start(format!("{place} cannot be used to know the database: {error}"))
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner: Option<Arc<dyn ServerCertVerifier>> = match (checked, roots) {
            (Checked::Nothing, _) => None,
            (_, Some(file)) => {
                let mut store = RootCertStore::empty();
                for cert in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                    store.add(cert.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
                }
                let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
                Some(built.build().map_err(|error| wrong(&error))?)
            }
            (_, None) => {
                let system = rustls_platform_verifier::Verifier::new(provider.clone());
                Some(Arc::new(system.map_err(|error| wrong(&error))?))
            }
        };
        let known = Known { inner, names: checked == Checked::RootAndName, provider: provider.clone() };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(known))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// Looks at the certificate of whoever answers.
#[derive(Debug)]
struct Known {
    /// Who knows roots; none where anybody will do.
    inner: Option<Arc<dyn ServerCertVerifier>>,
    /// Whether the certificate has to be for the host.
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(cert, chain, name, ocsp, now) {
            // The name is looked at last, when the root is known to be a good one.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            done => done,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = Connect;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, InvalidDnsNameError> {
        Ok(Connect { tls: self.0.clone().into(), name: ServerName::try_from(host.to_owned())? })
    }
}

/// One connection that is to be encrypted.
pub(super) struct Connect {
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.connect(self.name, stream).await.map(Stream) })
    }
}

/// An encrypted connection.
pub(super) struct Stream<S>(Encrypted<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> String {
        match parse(&format!("postgres://hive:secret@db.example.org/hive?{query}")) {
            Err(fail) => fail.to_string(),
            Ok(_) => panic!("{query} is taken"),
        }
    }

    #[test]
    fn an_address_says_whether_it_is_spoken_to_in_plain() {
        for (query, tls, mode) in [
            ("", false, SslMode::Disable),
            ("?sslmode=disable&connect_timeout=3", false, SslMode::Disable),
            ("?sslmode=require", true, SslMode::Require),
            ("?application_name=comb&sslmode=require", true, SslMode::Require),
        ] {
            let read = parse(&format!("postgres://hive:secret@db.example.org/hive{query}"));
            let (config, found) = read.expect("is an address");
            assert_eq!((found.is_some(), config.get_ssl_mode()), (tls, mode), "{query}");
            assert_eq!(config.get_dbname(), Some("hive"));
        }
        for query in [
            "sslmode=prefer",
            "sslmode=allow",
            "sslmode=on",
            "sslmode=",
            "sslmode=require&sslmode=disable",
            "sslcert=/a",
            "sslrootcert=/a",
            "sslmode=require&sslrootcert=/a",
            "sslmode=verify-full&sslrootcert=%2Fnot%20there",
            "sslmode=verify-full&channel_binding=require",
            "nonsense=1",
        ] {
            let words = refused(query);
            assert!(!words.contains("secret"), "{words}");
        }
        assert!(refused("sslmode=verify-full&sslrootcert=%2Fnot%20there").contains("/not there"));
    }

    #[test]
    fn a_value_is_written_as_in_an_address() {
        assert_eq!(decoded("%2Fa%20b+c%zz%"), "/a b+c%zz%");
    }
}
