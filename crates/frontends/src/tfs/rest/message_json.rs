//! Protobuf messages as JSON, as the original's library prints them.
//!
//! Owns: one space a level, fields in the order of their declaration, every field without presence
//! printed, 64-bit integers as strings, enumerations by name. Knows no message in particular.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};
use vesta_model::Status;

use crate::tfs::json::push_string;

/// Which names fields get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Those of the `.proto` file.
    Proto,
    /// Those that the file gives for JSON.
    Json,
}

/// Appends `message`, whose full name is `name`, and a line feed.
///
/// # Errors
/// `INTERNAL` when there is no such message in the descriptors.
pub(crate) fn push_message(
    out: &mut Vec<u8>,
    message: &impl Message,
    name: &str,
    names: Names,
) -> Result<(), Status> {
    let broken = |why: String| Status::internal(format!("Failed to convert proto to json. {why}"));
    let descriptor = vesta_protos::descriptor_pool()
        .get_message_by_name(name)
        .ok_or_else(|| broken(format!("There is no message {name}")))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| broken(error.to_string()))?;
    Printer { out, names, depth: 0 }.message(&message);
    out.push(b'\n');
    Ok(())
}

struct Printer<'o> {
    out: &'o mut Vec<u8>,
    names: Names,
    depth: usize,
}

impl Printer<'_> {
    fn message(&mut self, message: &DynamicMessage) {
        let mut fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        // A field's path ends with its position in the file.
        fields.sort_by_key(|field| field.path().last().copied());
        fields.retain(|field| message.has_field(field) || !field.supports_presence());
        let names = self.names;
        self.block(*b"{}", fields, |printer, field| {
            let name = match names {
                Names::Proto => field.name(),
                Names::Json => field.json_name(),
            };
            printer.key(name);
            printer.field(&field, &message.get_field(&field));
        });
    }

    /// Items between brackets, one a line.
    fn block<T>(
        &mut self,
        [open, close]: [u8; 2],
        items: Vec<T>,
        mut print: impl FnMut(&mut Self, T),
    ) {
        self.out.push(open);
        let empty = items.is_empty();
        self.depth += 1;
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.line();
            print(self, item);
        }
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.out.push(close);
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + self.depth, b' ');
    }

    fn key(&mut self, name: &str) {
        push_string(self.out, name.as_bytes());
        self.out.extend_from_slice(b": ");
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) {
        match value {
            Value::List(list) => {
                self.block(*b"[]", list.iter().collect(), |printer, item| {
                    printer.value(&field.kind(), item);
                });
            }
            Value::Map(map) => {
                let kind = field
                    .kind()
                    .as_message()
                    .map_or_else(|| field.kind(), |entry| entry.map_entry_value_field().kind());
                let mut entries: Vec<(String, &Value)> =
                    map.iter().map(|(key, value)| (key_text(key), value)).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                self.block(*b"{}", entries, |printer, (key, value)| {
                    printer.key(&key);
                    printer.value(&kind, value);
                });
            }
            value => self.value(&field.kind(), value),
        }
    }

    fn value(&mut self, kind: &Kind, value: &Value) {
        match value {
            Value::Bool(value) => self.plain(value),
            Value::I32(value) => self.plain(value),
            Value::U32(value) => self.plain(value),
            Value::I64(value) => self.quoted(&value.to_string()),
            Value::U64(value) => self.quoted(&value.to_string()),
            Value::F32(value) => self.float(f64::from(*value), value.is_finite(), value),
            Value::F64(value) => self.float(*value, value.is_finite(), value),
            Value::String(text) => push_string(self.out, text.as_bytes()),
            Value::Bytes(bytes) => self.quoted(&STANDARD.encode(bytes)),
            Value::EnumNumber(number) => {
                let value = kind.as_enum().and_then(|kind| kind.get_value(*number));
                match value {
                    Some(value) => self.quoted(value.name()),
                    None => self.plain(number),
                }
            }
            Value::Message(message) => match wrapped(message) {
                Some((kind, value)) => self.value(&kind, &value),
                None => self.message(message),
            },
            Value::List(_) | Value::Map(_) => self.out.extend_from_slice(b"null"),
        }
    }

    fn plain(&mut self, value: impl std::fmt::Display) {
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = write!(text, "{value}");
        self.out.extend_from_slice(text.as_bytes());
    }

    fn quoted(&mut self, text: &str) {
        push_string(self.out, text.as_bytes());
    }

    fn float(&mut self, value: f64, finite: bool, text: impl std::fmt::Display) {
        if finite {
            self.plain(text);
        } else if value.is_nan() {
            self.quoted("NaN");
        } else {
            self.quoted(if value > 0.0 { "Infinity" } else { "-Infinity" });
        }
    }
}

/// The value inside one of the messages that only make a scalar optional; JSON has it bare.
fn wrapped(message: &DynamicMessage) -> Option<(Kind, Value)> {
    let descriptor = message.descriptor();
    let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
    let scalars =
        ["Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double", "String", "Bytes"];
    if !scalars.contains(&name.strip_suffix("Value")?) {
        return None;
    }
    let field = descriptor.get_field_by_name("value")?;
    Some((field.kind(), message.get_field(&field).into_owned()))
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
