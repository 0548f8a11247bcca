//! What goes wrong in the hive, and what is answered then.

use orchestrator_api::error::{ApiError, Code};
use orchestrator_api::report::Refusal;
use serde_json::{Map, Value};

use super::chance;
use super::database::DbError;

/// Why something was not done.
#[derive(Debug, Clone)]
pub enum Fail {
    /// What is answered.
    Api(Box<ApiError>),
    /// The database.
    Db(DbError),
    /// The hive cannot begin: said on its terminal.
    Start(String),
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fail::Api(error) => f.write_str(&error.message),
            Fail::Db(error) => error.fmt(f),
            Fail::Start(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fail {}

impl From<DbError> for Fail {
    fn from(error: DbError) -> Self {
        Fail::Db(error)
    }
}

impl From<Box<ApiError>> for Fail {
    fn from(error: Box<ApiError>) -> Self {
        Fail::Api(error)
    }
}

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SessionOver => Fail::new(Code::SessionOver, "the session is over: say hello again"),
            Refusal::ReportOld => Fail::new(Code::ReportOld, "a later report was taken before"),
            Refusal::Cloned => {
                Fail::new(Code::DeviceCloned, "another machine has this device's identity: join again")
            }
            Refusal::Revoked => Fail::new(Code::DeviceRevoked, "this device was revoked: join again"),
            Refusal::Unknown => Fail::new(Code::DeviceUnknown, "this hive knows no such device: join again"),
        }
    }
}

impl Fail {
    /// An answer with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Fail::Api(Box::new(ApiError::new(code, message)))
    }

    /// A hive that cannot begin.
    pub fn start(text: impl Into<String>) -> Self {
        Fail::Start(text.into())
    }

    /// A field of the request that is not what it must be.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let error = ApiError::new(Code::BadRequest, message);
        Fail::Api(Box::new(ApiError { field: Some(field.to_owned()), ..error }))
    }

    /// What was asked for is not there, or is another account's: nobody can tell which.
    pub fn not_found() -> Self {
        Fail::new(Code::NotFound, "there is nothing of that name here")
    }

    /// It makes no sense as things are.
    pub fn state(message: impl Into<String>) -> Self {
        Fail::new(Code::State, message)
    }

    /// With what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Fail::Api(error) => Fail::Api(Box::new(ApiError { hint: Some(hint.into()), ..*error })),
            other => other,
        }
    }

    /// With a field of `details`.
    #[must_use]
    pub fn detail(self, name: &str, value: impl Into<Value>) -> Self {
        match self {
            Fail::Api(mut error) => {
                error.details.insert(name.to_owned(), value.into());
                Fail::Api(error)
            }
            other => other,
        }
    }

    /// Worth trying again, not before this.
    pub fn slow_down(ms: u64) -> Self {
        Self::wait(ms, "too many requests from here in a short time")
    }

    /// The same for another reason.
    pub fn wait(ms: u64, message: &str) -> Self {
        let hint = format!("Wait {} min, then try again.", ms.div_ceil(60_000));
        let error = ApiError::new(Code::SlowDown, message);
        let hint = Some(hint).filter(|_| ms >= 60_000);
        Fail::Api(Box::new(ApiError { retry_after_ms: Some(ms), hint, ..error }))
    }

    /// As much is under way as the hive has room for.
    pub fn full() -> Self {
        let error = ApiError::new(Code::HiveFull, "the hive has as much to do as it has room for");
        Fail::Api(Box::new(ApiError { retry_after_ms: Some(5_000), ..error }))
    }

    /// A name that is taken, where the database says so.
    #[must_use]
    pub fn taken(self, message: &str) -> Self {
        match self {
            Fail::Db(DbError::Unique) => Fail::new(Code::Exists, message),
            other => other,
        }
    }

    /// What is answered. What nobody should see goes to the log with an id that the answer has too.
    pub fn answer(self) -> Box<ApiError> {
        match self {
            Fail::Api(error) => error,
            Fail::Db(DbError::Away(why)) => {
                tracing::warn!(%why, "the database does not answer");
                Box::new(ApiError {
                    retry_after_ms: Some(2000),
                    ..ApiError::new(Code::DatabaseAway, "the hive's database does not answer")
                })
            }
            Fail::Db(error) => internal(&error.to_string()),
            Fail::Start(text) => internal(&text),
        }
    }
}

fn internal(why: &str) -> Box<ApiError> {
    let id = chance::hex::<8>();
    tracing::error!(%id, %why, "a request failed for a reason that is the hive's own");
    let error = ApiError::new(Code::Internal, "the hive made a mistake; its log has more under this id");
    let details = Map::from_iter([("id".to_owned(), Value::from(id.to_string()))]);
    Box::new(ApiError { details, ..error })
}
