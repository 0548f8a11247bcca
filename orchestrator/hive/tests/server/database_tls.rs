//! TLS to the database: with a real PostgreSQL, and with one that has none.

use orchestrator_hive::{Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{World, databases};

fn options(database: &str) -> Options {
    Options::new(database, "127.0.0.1:0".parse().expect("is an address"))
}

/// Whether all connections of a database are encrypted; there are some.
async fn encrypted(server: &str, name: &str) -> bool {
    let (client, connection) =
        tokio_postgres::connect(server, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    let sql = "SELECT count(*), bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a ON a.pid = s.pid \
         WHERE a.datname = $1";
    let row = client.query_one(sql, &[&name]).await.expect("it says how it is spoken to");
    assert!(row.get::<_, i64>(0) > 0, "nobody is connected");
    row.get(1)
}

/// The file with the root of its certificate, which the server of the tests names itself.
async fn root(server: &str) -> String {
    let (client, connection) =
        tokio_postgres::connect(server, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client.query_one("SHOW ssl_ca_file", &[]).await.expect("it has one").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_knows_its_database_by_the_certificate() {
    let Ok(server) = std::env::var("COMB_TEST_POSTGRES") else { return };
    let (database, folder) = databases().await.remove(1);
    let name = database.rsplit_once('/').expect("has a name").1.to_owned();
    let root = root(&server).await;
    let by_name = database.replace("127.0.0.1", "localhost");
    assert_ne!(by_name, database, "the server of the tests is on loopback");
    let trusted = format!("sslrootcert={}", root.replace('/', "%2F"));

    for good in [
        format!("{by_name}?sslmode=verify-full&{trusted}"),
        format!("{database}?sslmode=verify-ca&{trusted}"),
        format!("{database}?sslmode=require"),
    ] {
        let mut world = World::with(options(&good), folder.clone()).await;
        world.nobody("GET", "/v1/hive", &serde_json::Value::Null).await.is(200);
        assert!(encrypted(&server, &name).await, "{good}");
        world.end().await;
    }
    for (bad, why) in [
        // The certificate is not for this name.
        (format!("{database}?sslmode=verify-full&{trusted}"), "not valid for name"),
        // No root of the system made it.
        (format!("{by_name}?sslmode=verify-full"), "UnknownIssuer"),
        (format!("{database}?sslmode=verify-ca"), "UnknownIssuer"),
    ] {
        let refused = Server::begin(options(&bad)).await.expect_err("it is somebody else").to_string();
        assert!(refused.contains("handshake"), "{refused}");
        assert!(refused.contains(why), "{refused}");
    }
}

/// A server without TLS, or somebody in between who says that it has none: it hears the question and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_in_plain_to_a_database_without_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let port = listener.local_addr().expect("it listens").port();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody comes");
        let mut question = [0; 8];
        stream.read_exact(&mut question).await.expect("asks for TLS");
        stream.write_all(b"N").await.expect("hears that there is none");
        let mut more = Vec::new();
        let _ = stream.read_to_end(&mut more).await;
        (question, more)
    });
    let address = format!("postgres://hive:a-secret@127.0.0.1:{port}/hive?sslmode=require");
    let refused = Server::begin(options(&address)).await.expect_err("there is no TLS").to_string();
    assert!(refused.contains("TLS") && !refused.contains("a-secret"), "{refused}");
    let (question, more) = heard.await.expect("it heard");
    assert_eq!(question, [0, 0, 0, 8, 4, 210, 22, 47], "the code of the question for TLS");
    assert_eq!(more, b"");
    for mode in ["prefer", "allow"] {
        let address = format!("postgres://hive:a-secret@127.0.0.1:{port}/hive?sslmode={mode}");
        let refused = Server::begin(options(&address)).await.expect_err("that may be plain").to_string();
        assert!(refused.contains("plain") && !refused.contains("a-secret"), "{refused}");
    }
}
