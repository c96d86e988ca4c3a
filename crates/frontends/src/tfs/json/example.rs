//! A classify or regress request from JSON: objects of features to serialised `tf.Example`s.
//!
//! Owns: the kind that each JSON value gives a feature, and the original's words for values that
//! give none. An integer makes an int64 feature even where the model wants a float; that is the
//! original's, and kept.

use bytes::Bytes;
use prost::Message as _;
use vesta_protos::tensorflow::{
    BytesList, Example, Feature, Features, FloatList, Int64List, feature::Kind as FeatureKind,
};

use super::cursor::Cursor;
use super::scan::{Kind, Value};
use super::{Refusal, open, text};
use crate::budget::Permit;

/// A request to classify or regress.
#[derive(Debug, PartialEq)]
pub(crate) struct ExamplesRequest {
    /// The name of the signature as the request says it; may be empty and need not be UTF-8.
    pub(crate) signature: Vec<u8>,
    /// Serialised examples, at least one. The context, if any, stands before each: the bytes of two
    /// messages in a row are the bytes of both merged.
    pub(crate) examples: Vec<Bytes>,
}

impl ExamplesRequest {
    /// Reads a request; `permit` grows by the bytes of its examples.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the original's words; `RESOURCE_EXHAUSTED` when the bytes are not to
    /// be had.
    pub(crate) fn parse(json: &[u8], permit: &mut Permit) -> Result<ExamplesRequest, Refusal> {
        let (document, signature) = open(json, ["signature_name", "context", "examples"], 0)?;
        let refuse = |after| Err(Refusal::quoting("JSON Value: ", document.root, after));
        let [_, context, examples] = document.members;
        let context = match context {
            Some(context) => example(context)?.encode_to_vec(),
            None => Vec::new(),
        };
        let Some(list) = examples else {
            // The original names classify for both.
            return refuse(
                " When method is classify, key 'examples' is expected and was not found",
            );
        };
        if list.kind() != Kind::Array {
            return refuse(" Expecting 'examples' value to be an list/array");
        }
        if list.is_empty_array() {
            return refuse(" 'examples' value is an empty array");
        }
        let mut examples = Vec::new();
        for value in list.elements() {
            let example = example(value)?;
            let mut bytes = Vec::with_capacity(context.len() + example.encoded_len());
            bytes.extend_from_slice(&context);
            example.encode_raw(&mut bytes);
            permit.grow(bytes.len() + size_of::<Bytes>())?;
            examples.push(bytes.into());
        }
        Ok(ExamplesRequest { signature, examples })
    }
}

fn example(value: Value<'_>) -> Result<Example, Refusal> {
    if value.kind() != Kind::Object {
        return Err(Refusal::invalid(format!(
            "Example must be JSON object but got JSON {}",
            value.kind().name()
        )));
    }
    let mut features = Features::default();
    for (name, content) in value.members() {
        let name = name.unescaped();
        let mut feature = None;
        if content.kind() == Kind::Array {
            for element in content.elements() {
                add(element, &name, &mut feature)?;
            }
        } else {
            add(content, &name, &mut feature)?;
        }
        let name = String::from_utf8(name.into_owned()).map_err(|error| {
            let before = b"Feature name is not UTF-8: ".as_slice();
            Refusal::invalid([before, error.as_bytes()].concat())
        })?;
        features.feature.insert(name, Feature { kind: feature });
    }
    Ok(Example { features: Some(features) })
}

/// Adds one value to a feature, whose kind the first value decides.
fn add(value: Value<'_>, name: &[u8], feature: &mut Option<FeatureKind>) -> Result<(), Refusal> {
    let kind = value.kind();
    let unexpected = || {
        let after = format!(" has element with unexpected JSON type: {}", kind.name());
        Refusal::invalid([b"Feature: ", name, after.as_bytes()].concat())
    };
    match kind {
        Kind::Null | Kind::Array => Err(unexpected()),
        Kind::True | Kind::False => int64s(feature, name)?.push_one(i64::from(kind == Kind::True)),
        Kind::Object => {
            let text = value.as_base64().ok_or_else(unexpected)?;
            let list = byte_strings(feature, name)?;
            let bytes = text::decode_base64(&text.unescaped())
                .ok_or_else(|| Refusal::invalid("Unable to base64 decode"))?;
            list.push_one(bytes.into())
        }
        Kind::String => {
            let text = value.as_text().ok_or_else(unexpected)?.unescaped().into_owned();
            byte_strings(feature, name)?.push_one(text.into())
        }
        Kind::Number => {
            let number = Cursor::new(value.text).number()?;
            let Some(integer) = number.integer() else {
                return floats(feature, name)?.push_one(number.to_f32());
            };
            let list = int64s(feature, name)?;
            let integer = i64::try_from(integer).map_err(|_| {
                let after = b" has uint64_t element. Only int64_t is supported.".as_slice();
                Refusal::invalid([b"Feature: ", name, after].concat())
            })?;
            list.push_one(integer)
        }
    }
}

/// Lets the arms above end in one expression.
trait PushOne<T> {
    fn push_one(&mut self, value: T) -> Result<(), Refusal>;
}

impl<T> PushOne<T> for Vec<T> {
    fn push_one(&mut self, value: T) -> Result<(), Refusal> {
        self.push(value);
        Ok(())
    }
}

fn int64s<'f>(
    feature: &'f mut Option<FeatureKind>,
    name: &[u8],
) -> Result<&'f mut Vec<i64>, Refusal> {
    match feature.get_or_insert_with(|| FeatureKind::Int64List(Int64List::default())) {
        FeatureKind::Int64List(list) => Ok(&mut list.value),
        other => Err(mixed(name, other)),
    }
}

fn floats<'f>(
    feature: &'f mut Option<FeatureKind>,
    name: &[u8],
) -> Result<&'f mut Vec<f32>, Refusal> {
    match feature.get_or_insert_with(|| FeatureKind::FloatList(FloatList::default())) {
        FeatureKind::FloatList(list) => Ok(&mut list.value),
        other => Err(mixed(name, other)),
    }
}

fn byte_strings<'f>(
    feature: &'f mut Option<FeatureKind>,
    name: &[u8],
) -> Result<&'f mut Vec<Bytes>, Refusal> {
    match feature.get_or_insert_with(|| FeatureKind::BytesList(BytesList::default())) {
        FeatureKind::BytesList(list) => Ok(&mut list.value),
        other => Err(mixed(name, other)),
    }
}

fn mixed(name: &[u8], so_far: &FeatureKind) -> Refusal {
    let kind = match so_far {
        FeatureKind::BytesList(_) => "bytes",
        FeatureKind::FloatList(_) => "float",
        FeatureKind::Int64List(_) => "int64",
    };
    let after = format!(" expecting type: {kind}");
    Refusal::invalid([b"Unexpected element type in feature: ", name, after.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn parse(json: &str) -> Result<ExamplesRequest, String> {
        ExamplesRequest::parse(json.as_bytes(), &mut Budget::new(1 << 20).permit())
            .map_err(|refusal| String::from_utf8(refusal.message).unwrap())
    }

    fn features(bytes: &Bytes) -> std::collections::BTreeMap<String, FeatureKind> {
        let example = Example::decode(bytes.clone()).unwrap();
        let features = example.features.unwrap_or_default().feature;
        features.into_iter().map(|(name, feature)| (name, feature.kind.unwrap())).collect()
    }

    #[test]
    fn values_decide_the_kind_of_their_feature() {
        let request = parse(
            r#"{"signature_name": "s", "context": {"query": "pizza", "x": 1}, "examples": [
                {"names": ["baz", {"b64": "aGVsbG8="}], "ratings": [8.0, NaN, -Infinity]},
                {"mix": [1, true, false], "x": 2.5, "x": 3.5}]}"#,
        )
        .unwrap();
        assert_eq!(request.signature, b"s");
        let first = features(&request.examples[0]);
        let bytes = |list: &[&'static str]| {
            FeatureKind::BytesList(BytesList { value: list.iter().map(|&t| t.into()).collect() })
        };
        assert_eq!(first["names"], bytes(&["baz", "hello"]));
        assert_eq!(first["query"], bytes(&["pizza"]));
        assert_eq!(first["x"], FeatureKind::Int64List(Int64List { value: vec![1] }));
        let second = features(&request.examples[1]);
        assert_eq!(second["mix"], FeatureKind::Int64List(Int64List { value: vec![1, 1, 0] }));
        assert_eq!(second["x"], FeatureKind::FloatList(FloatList { value: vec![3.5] }));
    }

    #[test]
    fn faults_have_the_originals_words() {
        for (json, want) in [
            (r#"{"examples": [[{}]]}"#, "Example must be JSON object but got JSON Array"),
            (
                r#"{"examples": [{"n": [10, {"t": 1}]}]}"#,
                "Feature: n has element with unexpected JSON type: Object",
            ),
            (
                r#"{"examples": [{"n": [20, 18446744073709551603]}]}"#,
                "Feature: n has uint64_t element. Only int64_t is supported.",
            ),
            (
                r#"{"examples": [{"n": [1.5, "a"]}]}"#,
                "Unexpected element type in feature: n expecting type: float",
            ),
            ("", "JSON Parse error: The document is empty"),
        ] {
            assert_eq!(parse(json).unwrap_err(), want);
        }
    }
}
