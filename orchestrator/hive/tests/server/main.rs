//! The server over real HTTP, on SQLite, and on PostgreSQL where `COMB_TEST_POSTGRES` names a server.
//!
//! Devices here are real in what they say and sign; what they say that they did, they did not.

mod apps;
mod devices;
mod load;
mod people;
mod routes;
mod world;
