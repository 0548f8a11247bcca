//! Values in compose's answer, which says one thing in several ways.

use serde_json::Value;

/// Whether a value says anything: compose answers with null, empty texts and empty lists where nothing was said.
pub(super) fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Whether a flag may be on: whatever is not plainly off.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "false",
        _ => true,
    }
}

/// A whole number, also one that is written as a text.
pub(super) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A value in a message.
pub(super) fn told(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(200).collect::<String>().escape_debug().to_string(),
        Value::Null => String::new(),
        other => other.to_string().chars().take(200).collect(),
    }
}
