//! What a device says to whoever has the ring: `orchestrator/docs/api.md`, section 7.
//!
//! The hive passes parts on, and could change their order, leave some out or cut the end off. Each part is sealed under
//! its number, and the last one says that it is the last, so any of that is noticed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_crypto::{OwnerKey, Zeroizing};
use orchestrator_api::text::Uuid;
use serde::{Deserialize, Serialize};

use super::Client;
use crate::failure::{Failure, Kind, Result};
use crate::output;

/// Bytes of the sender's salt, before each part.
const SALT_BYTES: usize = 32;
/// Bytes of a part's tag.
const TAG_BYTES: usize = 16;
/// The longest line of an event that is read, in bytes: a part of 64 KiB in base64.
const LINE_BYTES_MAX: usize = 128 << 10;

/// A stream that a device will send.
#[derive(Debug, Clone, Copy)]
pub struct StreamId(pub Uuid);

/// A line of an app's, or of a device's doctor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The service; none, or empty, for the device itself.
    #[serde(default)]
    pub service: Option<String>,
    /// `out` or `err`.
    #[serde(default)]
    pub stream: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(default)]
    pub time: Option<String>,
    /// The text.
    #[serde(default)]
    pub text: String,
}

impl StreamId {
    /// A new one.
    pub fn new() -> Self {
        Self(Uuid(*uuid::Uuid::new_v4().as_bytes()))
    }

    /// Reads the stream to its end.
    pub fn read(
        self,
        client: &Client,
        owner: &OwnerKey,
        mut each: impl FnMut(Line) -> Result<()>,
    ) -> Result<()> {
        let mut events = Events::default();
        let mut parts = Parts { stream: self.0.0, salt: None, next: 0, over: false };
        let mut ended = None;
        client.follow(&format!("/v1/streams/{}", self.0), |bytes| {
            for event in events.push(bytes)? {
                match event.kind.as_str() {
                    "part" => {
                        for line in parts.open(owner, &event)? {
                            each(line)?;
                        }
                    }
                    "end" => ended = Some(event.data),
                    _ => {}
                }
            }
            Ok(ended.is_none())
        })?;
        if parts.over {
            return Ok(());
        }
        let why = match ended.as_deref().map(code) {
            Some(code) if code != "done" => format!(": {}", super::words::problem(&code).0),
            _ => String::new(),
        };
        Err(Failure::new(Kind::Unreachable, format!("the device's answer was cut off{why}"))
            .hint("the device or the hive went away meanwhile; try again"))
    }
}

/// The code in the data of an end, bare or as JSON.
fn code(data: &str) -> String {
    serde_json::from_str::<serde_json::Value>(data)
        .ok()
        .and_then(|value| value.as_str().or_else(|| value["code"].as_str()).map(str::to_owned))
        .unwrap_or_else(|| data.trim().to_owned())
}

/// Where a stream stands.
struct Parts {
    stream: [u8; 16],
    salt: Option<[u8; SALT_BYTES]>,
    next: u64,
    over: bool,
}

impl Parts {
    fn open(&mut self, owner: &OwnerKey, event: &Event) -> Result<Vec<Line>> {
        let number = self.next;
        let wrong = |what: &str| {
            Failure::new(Kind::Foreign, format!("part {number} of the device's answer {what}"))
                .hint("the hive may have changed it, or the device has another key ring")
        };
        if self.over || event.id != Some(self.next) {
            return Err(wrong("is missing"));
        }
        let bytes = STANDARD.decode(event.data.trim()).map_err(|_| wrong("is no base64"))?;
        let split = bytes.split_first_chunk::<SALT_BYTES>();
        let (salt, sealed) = split.ok_or_else(|| wrong("ends early"))?;
        if self.salt.is_some_and(|before| before != *salt) {
            return Err(wrong("is another stream's"));
        }
        self.salt = Some(*salt);
        let (cipher_text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or_else(|| wrong("ends early"))?;
        let cipher = owner.stream_cipher(&self.stream, salt);
        let open = |last: u8| {
            let associated = [self.stream.as_slice(), &[last]].concat();
            let mut plain = Zeroizing::new(cipher_text.to_vec());
            cipher.open(self.next, &associated, &mut plain, tag).is_ok().then_some(plain)
        };
        let (plain, last) = match open(0) {
            Some(plain) => (plain, false),
            None => (open(1).ok_or_else(|| wrong("does not open"))?, true),
        };
        self.over = last;
        self.next += 1;
        let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|_| wrong("holds no lines"))).collect()
    }
}

/// An event of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Event {
    kind: String,
    id: Option<u64>,
    data: String,
}

/// Reads server-sent events out of whatever pieces they come in.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    event: Event,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() == LINE_BYTES_MAX {
                    return Err(Failure::new(Kind::Foreign, "the hive's stream has a line that is too long"));
                }
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
            self.line.clear();
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if event != Event::default() {
                    events.push(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.kind),
                "id" => self.event.id = value.parse().ok(),
                "data" => {
                    if self.event.data.len() + value.len() > LINE_BYTES_MAX {
                        return Err(Failure::new(
                            Kind::Foreign,
                            "the hive's stream has an event that is too long",
                        ));
                    }
                    self.event.data.push_str(value);
                }
                _ => {}
            }
        }
        Ok(events)
    }
}

/// Prints a line as a person reads it: nothing in it steers a terminal.
pub fn print(line: &Line, with_service: bool) -> Result<()> {
    let text = output::escape(line.text.trim_end_matches(['\n', '\r']).as_bytes());
    match line.service.as_deref().filter(|service| with_service && !service.is_empty()) {
        Some(service) => output::line(&format!("{} | {text}", output::escape(service.as_bytes()))),
        None => output::line(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [3; 16];
    const SALT: [u8; 32] = [7; 32];

    fn owner() -> OwnerKey {
        OwnerKey::from_seed([5; 32])
    }

    fn part(number: u64, last: bool, text: &str) -> Event {
        let mut plain = format!("{}\n", serde_json::json!({"service": "web", "stream": "out", "text": text}))
            .into_bytes();
        let associated = [ID.as_slice(), &[u8::from(last)]].concat();
        let tag = owner().stream_cipher(&ID, &SALT).seal(number, &associated, &mut plain);
        let bytes = [SALT.as_slice(), &plain, &tag].concat();
        Event { kind: "part".to_owned(), id: Some(number), data: STANDARD.encode(bytes) }
    }

    fn parts() -> Parts {
        Parts { stream: ID, salt: None, next: 0, over: false }
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn parts_open_in_their_order_up_to_the_last() {
        let mut parts = parts();
        assert_eq!(texts(parts.open(&owner(), &part(0, false, "one")).expect("the first")), ["one"]);
        assert!(!parts.over);
        assert_eq!(texts(parts.open(&owner(), &part(1, true, "two")).expect("the last")), ["two"]);
        assert!(parts.over);
        assert!(parts.open(&owner(), &part(2, false, "three")).is_err(), "nothing comes behind the last");
    }

    #[test]
    fn what_a_hive_does_to_a_stream_is_noticed() {
        assert!(parts().open(&owner(), &part(1, false, "left out")).is_err());
        let renumbered = Event { id: Some(0), ..part(1, false, "moved") };
        assert!(parts().open(&owner(), &renumbered).is_err());
        let mut twice = parts();
        twice.open(&owner(), &part(0, false, "once")).expect("once");
        assert!(twice.open(&owner(), &part(0, false, "once")).is_err());
        let mut other = parts();
        other.stream = [4; 16];
        assert!(other.open(&owner(), &part(0, false, "another stream's")).is_err());
        assert!(parts().open(&OwnerKey::from_seed([6; 32]), &part(0, false, "another owner's")).is_err());
        for data in ["", "!", "AAAA"] {
            let event = Event { kind: "part".to_owned(), id: Some(0), data: data.to_owned() };
            assert!(parts().open(&owner(), &event).is_err(), "{data}");
        }
    }

    #[test]
    fn events_come_in_whatever_pieces() {
        let text = ": hello\n\nevent: part\nid: 4\ndata: abc\r\n\r\nevent: end\ndata: done\n\n";
        let expected = [
            Event { kind: "part".to_owned(), id: Some(4), data: "abc".to_owned() },
            Event { kind: "end".to_owned(), id: None, data: "done".to_owned() },
        ];
        for size in [1, 2, 7, text.len()] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                found.extend(events.push(piece).expect("read"));
            }
            assert_eq!(found, expected, "in pieces of {size}");
        }
        let mut events = Events::default();
        assert!(events.push(&vec![b'a'; LINE_BYTES_MAX + 1]).is_err());
        assert_eq!(
            (code("done"), code("\"done\""), code("{\"code\":\"late\"}")),
            ("done".into(), "done".into(), "late".into())
        );
    }
}
