//! HTTPS with a certificate and its key from files.

use std::process::Command;
use std::sync::Arc;

use orchestrator_hive::{Options, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, databases};

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_with_a_certificate_speaks_tls_only() {
    let (database, folder) = databases().await.remove(0);
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut options = Options::new(database, "127.0.0.1:0".parse().expect("is an address"));
    options.tls = Some((cert.clone(), folder.path().join("nothing")));
    let refused = Server::begin(options.clone()).await.expect_err("the key is not there");
    assert!(refused.to_string().contains("nothing"), "{refused}");
    options.tls = Some((cert.clone(), key));
    let world = World::with(options, folder).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).expect("is a certificate")).expect("is one");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(world.address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("is a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.expect("it speaks TLS");
    let request = b"GET /v1/hive HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it takes a request");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    // Without TLS there is no answer.
    let mut plain = tokio::net::TcpStream::connect(world.address).await.expect("it listens");
    plain.write_all(request).await.expect("it takes bytes");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_that_others_reach_without_tls_says_so() {
    let caution = async |listen: &str, proxy: Option<&str>| {
        let (database, _folder) = databases().await.remove(0);
        let mut options = Options::new(database, listen.parse().expect("is an address"));
        options.proxies.extend(proxy.map(|ip| ip.parse::<std::net::IpAddr>().expect("is an address")));
        let server = Server::begin(options).await.expect("a hive begins");
        server.caution()
    };
    let told = caution("0.0.0.0:0", None).await.expect("it says so");
    assert!(
        told.contains("--tls-cert") && told.contains("--proxy") && told.contains("--insecure-http"),
        "{told}"
    );
    assert_eq!(caution("127.0.0.1:0", None).await, None);
    assert_eq!(caution("0.0.0.0:0", Some("192.0.2.1")).await, None);
}
