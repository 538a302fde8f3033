//! A row of the export as an object with known field names, and lenient readers of its fields: chats of this kind
//! never checked their types.

use super::mapping::Mapping;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A row as it is stored: the value untouched.
#[derive(Deserialize)]
pub struct Row<'a> {
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub value: &'a RawValue,
}

/// One object of a row, with known field names.
pub struct Record {
    pub key: String,
    pub fields: Map<String, Value>,
}

/// The objects of a row: one, or the elements of an array. A text that holds JSON is unwrapped. An error says why the
/// row has no object.
pub fn records(mapping: &Mapping, section: &str, row: &Row<'_>) -> Result<Vec<Record>, &'static str> {
    let value: Value = serde_json::from_str(row.value.get()).map_err(|_| "the value is no valid JSON text")?;
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| "the value is a text without JSON")?,
        value => value,
    };
    let objects = match value {
        Value::Object(fields) => vec![fields],
        Value::Array(values) if values.iter().any(Value::is_object) => values
            .into_iter()
            .filter_map(|value| if let Value::Object(fields) = value { Some(fields) } else { None })
            .collect(),
        Value::Null => return Err("the value is null"),
        _ => return Err("the value is no object"),
    };
    let single = objects.len() == 1;
    Ok(objects.into_iter().map(|fields| known(mapping, section, row, fields, single)).collect())
}

fn known(mapping: &Mapping, section: &str, row: &Row<'_>, mut fields: Map<String, Value>, single: bool) -> Record {
    mapping.renames(section, &row.key, |old, known| {
        if is_absent(fields.get(known))
            && let Some(value) = fields.get(old).filter(|value| !value.is_null()).cloned()
        {
            fields.insert(known.to_owned(), value);
        }
    });
    for (name, part) in mapping.parts(&row.key) {
        // The elements of an array have ids of their own.
        if is_absent(fields.get(&name)) && (single || name != "id") {
            fields.insert(name, Value::String(part.to_owned()));
        }
    }
    Record { key: row.key.clone().into_owned(), fields }
}

fn is_absent(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_str() == Some(""))
}

impl Record {
    /// A text; numbers and booleans as their text; otherwise empty.
    pub fn text(&self, name: &str) -> String {
        match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => String::new(),
        }
    }

    /// Whether a field is true in any of the usual spellings.
    pub fn flag(&self, name: &str) -> bool {
        match self.fields.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.as_str(), "true" | "1" | "yes"),
            Some(Value::Number(number)) => number.as_f64() == Some(1.0),
            _ => false,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        !is_absent(self.fields.get(name))
    }

    pub fn date(&self, name: &str) -> Option<String> {
        super::dates::parse(self.fields.get(name)?)
    }

    /// The texts of an array; other elements are left out.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        self.fields
            .get(name)
            .and_then(Value::as_array)
            .map(|values| values.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    pub fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.fields.get(name)?.as_object()
    }
}
