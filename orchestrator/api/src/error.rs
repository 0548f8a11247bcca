//! Errors as they travel (`api.md`, section 2).
//!
//! A message is a sentence for a person without a full stop; a code is for programs, and is a promise. Nothing that
//! came from inside a stream or a package is repeated.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::compose::Refusal;

macro_rules! codes {
    ($($status:literal: $($code:ident $text:literal),+;)+) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the table of `api.md` says what each means")]
        pub enum Code {
            $($(#[serde(rename = $text)] $code,)+)+
            /// One that a newer hive made; never sent.
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl Code {
            /// All that are sent, in the order of the table.
            pub const ALL: &[Self] = &[$($(Self::$code,)+)+];

            /// As it travels.
            pub fn text(self) -> &'static str {
                match self {
                    $($(Self::$code => $text,)+)+
                    Self::Unknown => "unknown",
                }
            }

            /// The status of an answer with this code, where its route says no other.
            pub fn status(self) -> u16 {
                match self {
                    $($(Self::$code => $status,)+)+
                    Self::Unknown => 500,
                }
            }
        }
    };
}

codes! {
    400: BadRequest "bad_request", BadJson "bad_json", UnknownField "unknown_field";
    401: NotLoggedIn "not_logged_in", SecondNeeded "second_needed", TokenEnded "token_ended", BadSignature "bad_signature", SessionOver "session_over",
        DeviceUnknown "device_unknown";
    // To a device; an order for one that is revoked is refused with 422.
    403: RoleTooLow "role_too_low", DeviceRevoked "device_revoked", DeviceCloned "device_cloned", CodeWrong "code_wrong",
        CodeUsed "code_used", CodeExpired "code_expired", SetupCodeWrong "setup_code_wrong", LoginWrong "login_wrong",
        SecondWrong "second_wrong", FormOld "form_old";
    404: NotFound "not_found";
    409: Exists "exists", OperationRunning "operation_running", RingMoved "ring_moved", RevisionOld "revision_old",
        State "state", ReportOld "report_old";
    412: Changed "changed";
    413: TooLarge "too_large";
    422: PolicyRefused "policy_refused", StoreCannotArbitrate "store_cannot_arbitrate", StoreIsLocal "store_is_local",
        StoreKind "store_kind", DeviceDraining "device_draining", DeviceLocked "device_locked",
        DeviceSilent "device_silent", DeviceOnline "device_online", AuthoringOff "authoring_off",
        DeviceNotAuthorized "device_not_authorized", PackageExpired "package_expired", ArchMismatch "arch_mismatch",
        NoSpace "no_space", PortTaken "port_taken", DockerAway "docker_away";
    429: SlowDown "slow_down";
    500: Internal "internal";
    503: HiveRecovering "hive_recovering", DatabaseAway "database_away", HiveFull "hive_full";
}

/// An error with all that is said about it. Fields that say nothing do not travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs.
    pub code: Code,
    /// For a person, without a full stop.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A file of the app's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A line of it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The field of the request, or the key of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Only the fields that the code's line names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

impl ApiError {
    /// With a message, and nothing else.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            file: None,
            line: None,
            field: None,
            retry_after_ms: None,
            details: Map::new(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self {
            hint: refusal.hint,
            file: Some(refusal.place.file),
            line: Some(refusal.place.line),
            field: Some(refusal.field).filter(|field| !field.is_empty()),
            ..Self::new(Code::PolicyRefused, refusal.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compose::Place;

    /// The rows of the document's table: statuses, and the codes that stand there.
    fn table() -> Vec<(Vec<u16>, BTreeSet<String>)> {
        let document = include_str!("../../docs/api.md");
        let (_, behind) = document.split_once("| status | codes |\n|---|---|\n").expect("the table is there");
        let (rows, _) = behind.split_once("\n\n").expect("the table ends");
        let row = |row: &str| {
            let mut cells = row.trim_matches('|').splitn(2, '|');
            let statuses = cells.next().expect("a first cell").split(',');
            let statuses = statuses.map(|status| status.trim().parse().expect("a status")).collect();
            let words = cells.next().expect("a second cell").split('`').skip(1).step_by(2);
            let is_code = |word: &&str| {
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                    && *word != "retry_after_ms"
            };
            (statuses, words.filter(is_code).map(str::to_owned).collect())
        };
        rows.lines().map(row).collect()
    }

    #[test]
    fn the_codes_are_those_of_the_document() {
        let table = table();
        let documented: BTreeSet<String> = table.iter().flat_map(|(_, codes)| codes.clone()).collect();
        let built: BTreeSet<String> = Code::ALL.iter().map(|code| code.text().to_owned()).collect();
        assert_eq!(built, documented);
        for code in Code::ALL {
            let stands = table
                .iter()
                .any(|(statuses, codes)| statuses.contains(&code.status()) && codes.contains(code.text()));
            assert!(stands, "{} with {}", code.text(), code.status());
            assert_eq!(serde_json::to_value(code).expect("is a text"), code.text());
        }
    }

    #[test]
    fn a_refusal_travels_with_file_and_line() {
        let refusal = Refusal {
            place: Place { file: "compose.yaml".to_owned(), line: 12 },
            field: "services.web.volumes[0]".to_owned(),
            message: "the Docker socket is the machine itself".to_owned(),
            hint: None,
        };
        let body = ErrorBody { error: refusal.into() };
        let json = serde_json::to_value(&body).expect("is JSON");
        assert_eq!(
            json,
            serde_json::json!({"error": {
                "code": "policy_refused", "message": "the Docker socket is the machine itself",
                "file": "compose.yaml", "line": 12, "field": "services.web.volumes[0]",
            }})
        );
        // Of an answer, unknown fields and nulls say nothing.
        let newer = serde_json::json!({"error": {"code": "slow_down", "message": "m", "hint": null, "retry_after_ms": 5, "more": 1}});
        let read: ErrorBody = serde_json::from_value(newer).expect("is an error");
        assert_eq!(read.error, ApiError { retry_after_ms: Some(5), ..ApiError::new(Code::SlowDown, "m") });
        assert_eq!(read.error.code.status(), 429);
        let newer = serde_json::json!({"error": {"code": "not_yet_known", "message": "m"}});
        let read: ErrorBody = serde_json::from_value(newer).expect("is an error");
        assert_eq!(read.error.code, Code::Unknown);
    }
}
