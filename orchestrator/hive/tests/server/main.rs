//! The server over real HTTP, on SQLite, and on PostgreSQL where `COMB_TEST_POSTGRES` names a server.
//!
//! Devices here are real in what they say and sign; what they say that they did, they did not.

mod apart;
mod app_pages;
mod apps;
mod audit;
mod candidates;
mod database_tls;
mod devices;
mod fleet;
mod foreign;
mod limits;
mod load;
mod nights;
mod notify;
mod pages;
mod people;
mod removal;
mod revoke;
mod routes;
mod scene;
mod tasks;
mod tls;
mod told;
mod two;
mod volumes;
mod watch;
mod world;
