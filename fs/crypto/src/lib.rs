//! Keys, derivation, encryption, signing. The only crate that holds secret bytes.
