//! A real hive beside the state folders of its people. Only this file knows how one is started.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::world::{Outcome, World};

/// The password of its first owner.
pub const PASSWORD: &str = "a password of the owner";

/// A hive that runs, and the state folder that it runs in.
pub struct Hive {
    process: Child,
    /// Where it is.
    pub url: String,
    /// What it printed once.
    pub setup_code: String,
    world: World,
}

impl Hive {
    /// A new one on a free port, with an empty SQLite database.
    pub fn start() -> Self {
        let world = World::new();
        let database = format!("sqlite:{}", world.path("hive.db").display());
        let mut command = world.command(["hive", "run", "--listen", "127.0.0.1:0", "--db", &database]);
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (said, lines) = mpsc::channel();
        let pipes: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(process.stdout.take().expect("piped")),
            Box::new(process.stderr.take().expect("piped")),
        ];
        for pipe in pipes {
            let said = said.clone();
            // Read to the end, so that the hive never waits for a reader.
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = said.send(line);
                }
            });
        }
        let (mut url, mut code, mut all) = (None, None, String::new());
        while url.is_none() || code.is_none() {
            let line = lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|_| panic!("the hive does not say where it is: {all}"));
            for word in line.split_whitespace() {
                let word = word.trim_matches(|one: char| !one.is_ascii_alphanumeric());
                if word.starts_with("http://") {
                    url = Some(word.to_owned());
                }
                if word.len() == 35 && word.matches('-').count() == 3 {
                    code = Some(word.to_owned());
                }
            }
            all.push_str(&line);
        }
        let (url, setup_code) = (url.expect("found"), code.expect("found"));
        Self { process, url, setup_code, world }
    }

    /// A file of the hive's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    /// Its first account, made by an owner with a state folder of their own.
    pub fn owner(&self) -> World {
        let world = World::new();
        world.private("setup", &self.setup_code);
        world.private("password", PASSWORD);
        let made = world.comb(&format!(
            "account create {} --title Attic --setup-code-file setup --password-file password",
            self.url
        ));
        made.done();
        world
    }

    /// Somebody whom the owner invites.
    pub fn guest(&self, owner: &World, name: &str, role: &str) -> World {
        let letters = owner.comb(&format!("account invite --role {role}")).done();
        let guest = World::new();
        guest.private("invite", &letters);
        guest.private("password", "another long password");
        self.accept(&guest, name).done();
        guest
    }

    /// Accepts the invitation in the guest's folder.
    pub fn accept(&self, guest: &World, name: &str) -> Outcome {
        guest.comb(&format!(
            "account accept {} --name {name} --invite-file invite --password-file password",
            self.url
        ))
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
