//! Operators over strings.
//!
//! Invariant: bytes that an operator does not understand pass through unchanged, but where UTF-8 was
//! asked for; then they become the replacement character, as in TensorFlow.

use vesta_model::{Shape, Status, StringsBuilder, Tensor};

use super::elements::tensor;

fn strings_of(input: &Tensor) -> Result<vesta_model::StringsView<'_>, Status> {
    input
        .strings()
        .ok_or_else(|| Status::internal(format!("a string kernel was given {}", input.dtype())))
}

fn mapped(input: &Tensor, map: impl Fn(&[u8]) -> Vec<u8>) -> Result<Tensor, Status> {
    let mut builder = StringsBuilder::new();
    for text in strings_of(input)?.iter() {
        builder.push(&map(text));
    }
    Tensor::of_strings(input.shape().clone(), &builder)
}

/// Upper or lower case: of ASCII letters, or by Unicode's rules.
pub(crate) fn change_case(input: &Tensor, upper: bool, utf8: bool) -> Result<Tensor, Status> {
    mapped(input, |text| match (upper, utf8) {
        (true, false) => text.to_ascii_uppercase(),
        (false, false) => text.to_ascii_lowercase(),
        (true, true) => String::from_utf8_lossy(text).to_uppercase().into_bytes(),
        (false, true) => String::from_utf8_lossy(text).to_lowercase().into_bytes(),
    })
}

pub(crate) fn strip(input: &Tensor) -> Result<Tensor, Status> {
    // ASCII white space as C knows it, which has the vertical tab besides Rust's.
    let white = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    mapped(input, |text| {
        let start = text.iter().position(|byte| !white(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !white(byte)).map_or(start, |last| last + 1);
        text[start..end].to_vec()
    })
}

/// Lengths in bytes, or in code points (bytes that do not continue a character).
pub(crate) fn length(input: &Tensor, characters: bool) -> Result<Tensor, Status> {
    let lengths = strings_of(input)?
        .iter()
        .map(|text| {
            let count = if characters {
                text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
            } else {
                text.len()
            };
            i32::try_from(count)
                .map_err(|_| Status::invalid_argument("a string is longer than an int32 can say"))
        })
        .collect::<Result<Vec<i32>, Status>>()?;
    tensor(input.shape().clone(), lengths)
}

/// Strings at the same position joined; scalars repeat.
pub(crate) fn join(inputs: &[&Tensor], separator: &str) -> Result<Tensor, Status> {
    let mut shape = Shape::scalar();
    for input in inputs {
        if input.shape().rank() == 0 {
            continue;
        }
        if shape.rank() != 0 && shape != *input.shape() {
            return Err(Status::invalid_argument(format!(
                "Input shapes do not match: {shape} vs. {}",
                input.shape()
            )));
        }
        shape = input.shape().clone();
    }
    let texts = inputs.iter().map(|input| strings_of(input)).collect::<Result<Vec<_>, _>>()?;
    let mut builder = StringsBuilder::new();
    for at in 0..shape.elements() {
        let parts: Vec<&[u8]> = inputs
            .iter()
            .zip(&texts)
            .map(|(input, texts)| {
                texts.get(if input.shape().rank() == 0 { 0 } else { at }).unwrap_or(&[])
            })
            .collect();
        builder.push(&parts.join(separator.as_bytes()));
    }
    Tensor::of_strings(shape, &builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&[u8]]) -> Tensor {
        let mut builder = StringsBuilder::new();
        texts.iter().for_each(|text| builder.push(text));
        Tensor::of_strings(Shape::vector(texts.len()), &builder).unwrap()
    }

    #[test]
    fn case_leaves_foreign_bytes_alone_unless_utf8_was_asked_for() {
        let input = strings(&[b"a\xff\xc3\xa9\xc3\x9f"]);
        let ascii = change_case(&input, true, false).unwrap();
        assert_eq!(ascii, strings(&[b"A\xff\xc3\xa9\xc3\x9f"]));
        let utf8 = change_case(&input, true, true).unwrap();
        assert_eq!(utf8, strings(&[b"A\xef\xbf\xbd\xc3\x89SS"]));
    }

    #[test]
    fn lengths_count_bytes_or_characters() {
        let input = strings(&["é€a".as_bytes(), b""]);
        assert_eq!(length(&input, false).unwrap().to_vec::<i32>().unwrap(), [6, 0]);
        assert_eq!(length(&input, true).unwrap().to_vec::<i32>().unwrap(), [3, 0]);
    }

    #[test]
    fn joining_repeats_scalars_and_refuses_other_shapes() {
        let scalar = strings(&[b"z"]).reshaped(Shape::scalar()).unwrap();
        let out = join(&[&strings(&[b"a", b"b"]), &scalar], "-").unwrap();
        assert_eq!(out, strings(&[b"a-z", b"b-z"]));
        let error = join(&[&strings(&[b"a", b"b"]), &strings(&[b"z"])], "").unwrap_err();
        assert_eq!(error.message(), "Input shapes do not match: [2] vs. [1]");
    }

    #[test]
    fn stripping_takes_white_space_from_both_ends() {
        assert_eq!(strip(&strings(&[b" \t\x0ba b\n", b"  "])).unwrap(), strings(&[b"a b", b""]));
    }
}
