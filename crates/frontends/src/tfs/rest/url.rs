//! Which call a REST request means.
//!
//! Owns: the original's two URL patterns, matched by hand against the whole target, query string
//! included. Literal parts ignore case. Names and labels are percent-decoded after the match, so
//! they can hold any character.

use percent_encoding::percent_decode_str;

/// A call to predict, classify or regress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Predict,
    Classify,
    Regress,
}

/// What an operator may ask to be done with a model; ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Load,
    Unload,
}

/// Which version a target names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    None,
    /// Digits, as many as the client sent.
    Version(String),
    Label(String),
}

/// The target of a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallTarget {
    pub(crate) model: String,
    pub(crate) choice: Choice,
    /// `None` when the word is not in lower case, which matches and then means nothing.
    pub(crate) verb: Option<Verb>,
}

/// The target of a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelTarget {
    /// Empty when the target names none.
    pub(crate) model: String,
    pub(crate) choice: Choice,
    pub(crate) metadata: bool,
}

const MODELS: &str = "/v1/models";
const API: &str = "/v1/";

/// Whether a target is one of the API's at all.
pub(crate) fn is_api(target: &str) -> bool {
    strip_literal(target, API).is_some()
}

/// Matches the target of a POST.
pub(crate) fn match_call(target: &str) -> Option<CallTarget> {
    let rest = strip_literal(target, MODELS)?.strip_prefix('/')?;
    let (model, rest) = split_name(rest)?;
    let (choice, rest) = split_choice(rest);
    let word = rest.strip_prefix(':')?;
    let is = |verb: &str| word.eq_ignore_ascii_case(verb);
    let verb = match word {
        "predict" => Some(Verb::Predict),
        "classify" => Some(Verb::Classify),
        "regress" => Some(Verb::Regress),
        _ if is("predict") || is("classify") || is("regress") => None,
        _ => return None,
    };
    Some(CallTarget { model: decode(model), choice, verb })
}

/// Matches the target of a POST that loads or unloads a model.
pub(crate) fn match_order(target: &str) -> Option<(String, Order)> {
    let rest = strip_literal(target, MODELS)?.strip_prefix('/')?;
    let (model, word) = split_name(rest)?;
    let order = match word {
        ":load" => Order::Load,
        ":unload" => Order::Unload,
        _ => return None,
    };
    Some((decode(model), order))
}

/// Whether a target asks for the list of models.
pub(crate) fn is_list(target: &str) -> bool {
    target.eq_ignore_ascii_case(MODELS)
}

/// Matches the target of a GET.
pub(crate) fn match_model(target: &str) -> Option<ModelTarget> {
    let rest = strip_literal(target, MODELS)?;
    // The name may be left out; where it could be either, a word is the name.
    let named = rest.strip_prefix('/').and_then(split_name);
    named
        .and_then(|(model, rest)| match_model_rest(decode(model), rest))
        .or_else(|| match_model_rest(String::new(), rest))
}

fn match_model_rest(model: String, rest: &str) -> Option<ModelTarget> {
    let (choice, rest) = split_choice(rest);
    if rest.is_empty() {
        return Some(ModelTarget { model, choice, metadata: false });
    }
    let word = rest.strip_prefix('/')?;
    word.eq_ignore_ascii_case("metadata").then(|| ModelTarget {
        model,
        choice,
        metadata: word == "metadata",
    })
}

fn strip_literal<'t>(text: &'t str, literal: &str) -> Option<&'t str> {
    let head = text.get(..literal.len())?;
    head.eq_ignore_ascii_case(literal).then(|| &text[literal.len()..])
}

/// A name ends at a slash or a colon and is not empty.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(['/', ':']).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A version or a label, if one comes next.
fn split_choice(text: &str) -> (Choice, &str) {
    if let Some(rest) = strip_literal(text, "/versions/") {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if end > 0 {
            return (Choice::Version(rest[..end].to_owned()), &rest[end..]);
        }
    }
    if let Some((label, rest)) = strip_literal(text, "/labels/").and_then(split_name) {
        return (Choice::Label(decode(label)), rest);
    }
    (Choice::None, text)
}

/// Decodes `%41` and the like; other percent signs stay.
fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Whether every byte of a target may stand in one. The original's HTTP library refuses others, such
/// as brackets, before the API sees them.
pub(crate) fn is_valid(target: &str) -> bool {
    let mut bytes = target.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                hex() && hex()
            }
            b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'..=b'*'
            | b'+'
            | b','
            | b';'
            | b'='
            | b':'
            | b'@'
            | b'/'
            | b'?' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(model: &str, choice: Choice, verb: Option<Verb>) -> Option<CallTarget> {
        Some(CallTarget { model: model.into(), choice, verb })
    }

    fn get(model: &str, choice: Choice, metadata: bool) -> Option<ModelTarget> {
        Some(ModelTarget { model: model.into(), choice, metadata })
    }

    #[test]
    fn calls() {
        let encoded = "modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D";
        let plain = "modelname!#$%&'()*+,/:;=?@[]";
        let predict = Some(Verb::Predict);
        assert_eq!(
            match_call(&format!("/v1/models/{encoded}:predict")),
            call(plain, Choice::None, predict)
        );
        assert_eq!(
            match_call(&format!("/v1/models/m/labels/{encoded}:predict")),
            call("m", Choice::Label(plain.into()), predict)
        );
        assert_eq!(
            match_call("/V1/MODELS/m/VERSIONS/007:regress"),
            call("m", Choice::Version("007".into()), Some(Verb::Regress))
        );
        assert_eq!(match_call("/v1/models/m:PREDICT"), call("m", Choice::None, None));
        for wrong in [
            "/v1/foo",
            "/v1/models/foo/metadata",
            "/v1/models/foo",
            "/v1/models/:predict",
            "/v1/models/a/b:predict",
            "/v1/models/foo:predict/",
            "/v1/models/foo:predict?x=1",
            "/v1/models/foo:foo",
            "/v1/models/foo/version/50:predict",
            "/v1/models/foo/versions/x:predict",
            "/v1/models/foo/versions/:predict",
            "/v1/models/foo/versions/50/labels/a:regress",
            "/v1/models/foo/labels/:classify",
            "/v1/modelsfoo:classify",
        ] {
            assert_eq!(match_call(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn orders() {
        assert_eq!(match_order("/v1/models/a%2Fb:load"), Some(("a/b".into(), Order::Load)));
        assert_eq!(match_order("/V1/MODELS/m:unload"), Some(("m".into(), Order::Unload)));
        for wrong in [
            "/v1/models/m:LOAD",
            "/v1/models/m/versions/1:load",
            "/v1/models/m/labels/a:unload",
            "/v1/models/:load",
            "/v1/models/m:load?x=1",
            "/v1/models/m:reload",
            "/v2/models/m:load",
        ] {
            assert_eq!(match_order(wrong), None, "{wrong}");
        }
        assert!(is_list("/V1/models"));
        assert!(!is_list("/v1/models/") && !is_list("/v1/models?x=1"));
    }

    #[test]
    fn models() {
        assert_eq!(match_model("/v1/models"), get("", Choice::None, false));
        assert_eq!(match_model("/v1/models/m"), get("m", Choice::None, false));
        assert_eq!(match_model("/v1/models/m?x=1"), get("m?x=1", Choice::None, false));
        assert_eq!(
            match_model("/v1/models/m/versions/99"),
            get("m", Choice::Version("99".into()), false)
        );
        assert_eq!(
            match_model("/v1/models/m/labels/a/metadata"),
            get("m", Choice::Label("a".into()), true)
        );
        assert_eq!(match_model("/v1/models/m/METADATA"), get("m", Choice::None, false));
        assert_eq!(match_model("/v1/models/metadata"), get("metadata", Choice::None, false));
        assert_eq!(
            match_model("/v1/models/versions/5"),
            get("", Choice::Version("5".into()), false)
        );
        for wrong in [
            "/v1/models/",
            "/v1/models/m/",
            "/v1/models/m/versions/-1",
            "/v1/models/m/versions/abc",
            "/v1/models/m:status",
            "/v1/models/debug/model_name",
            "/v1/models/m/metadata/signature_def",
            "/v1/models?x=1",
        ] {
            assert_eq!(match_model(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn vectors_of_paths_are_met() {
        use serde_json::{Value, json};
        let said = |model: String, choice: Choice, word: Option<(&str, &str)>| -> Value {
            let mut found = json!({"matches": true, "model": model});
            match choice {
                Choice::None => {}
                Choice::Version(digits) => found["version"] = digits.parse::<i64>().unwrap().into(),
                Choice::Label(label) => found["label"] = label.into(),
            }
            if let Some((key, word)) = word {
                found[key] = word.into();
            }
            found
        };
        for vector in crate::tfs::json::vectors::vectors("path_parse") {
            let path = vector["path"].as_str().unwrap();
            assert!(is_valid(path) && is_api(path), "{path}");
            let found = if vector["method"] == "POST" {
                match_call(path).map(|call| {
                    let verb = match call.verb.unwrap() {
                        Verb::Predict => "predict",
                        Verb::Classify => "classify",
                        Verb::Regress => "regress",
                    };
                    said(call.model, call.choice, Some(("verb", verb)))
                })
            } else {
                match_model(path).map(|get| {
                    said(get.model, get.choice, get.metadata.then_some(("subresource", "metadata")))
                })
            };
            let found = found.unwrap_or_else(|| json!({"matches": false}));
            assert_eq!(found, vector["expect"], "{path}");
        }
    }

    #[test]
    fn targets_with_foreign_bytes_are_not_valid() {
        assert!(is_valid("/v1/models/m%2F:predict?a=1&b=~'()*+,;@"));
        for wrong in ["/v1?name[]=x", "/a b", "/%zz", "/%4", "/é", "/{", "/#x"] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }
}
