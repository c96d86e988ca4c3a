//! What is wrong with a value that makes no tensor.
//!
//! Owns: the order in which the original looks at a value, and its words for each fault. The shape
//! is that of the first element at each level, and then all lists and elements are held to it, in
//! the order of the text.
//! Invariant: linear in the text whatever its nesting; a list's size is found before its elements
//! are looked at, since the original says so first.

use vesta_model::{Code, DType, Shape};

use super::Refusal;
use super::cursor::Cursor;
use super::scan::{self, Kind, Value};
use super::text;

/// What a value would be as a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its shape.
    pub(super) sizes: Vec<usize>,
    /// Its elements.
    pub(super) count: usize,
}

/// Looks at `value` as a tensor of `dtype`.
///
/// # Errors
/// The first fault that the original would name.
pub(super) fn examine(value: Value<'_>, dtype: DType) -> Result<Extent, Refusal> {
    let lists = list_sizes(value);
    let sizes = first_sizes(value, &lists);
    let count = walk(value, dtype, &sizes, &lists)?;
    Ok(Extent { sizes, count })
}

/// Refuses a tensor called `alias` that has more dimensions than there may be, in the words that
/// the original has for tensors it cannot make.
pub(super) fn check_rank(rank: usize, alias: &str) -> Result<(), Refusal> {
    if rank > Shape::RANK_MAX {
        return Err(Refusal::invalid(format!("tensor parsing error: {alias}")));
    }
    Ok(())
}

/// The number of elements of every list, in the order in which lists open. Objects count as
/// elements, whatever is in them.
fn list_sizes(value: Value<'_>) -> Vec<u32> {
    let mut sizes: Vec<u32> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut cursor = Cursor::new(value.text);
    loop {
        if cursor.eat(b'[') {
            open.push(sizes.len());
            sizes.push(0);
            cursor.skip_space();
            if cursor.peek() != b']' {
                continue;
            }
        } else {
            if scan::skip_value(&mut cursor).is_err() {
                return sizes;
            }
            match open.last() {
                Some(&list) => sizes[list] = sizes[list].saturating_add(1),
                None => return sizes,
            }
        }
        loop {
            cursor.skip_space();
            if cursor.eat(b',') {
                cursor.skip_space();
                break;
            }
            if !cursor.eat(b']') {
                return sizes;
            }
            open.pop();
            match open.last() {
                Some(&list) => sizes[list] = sizes[list].saturating_add(1),
                None => return sizes,
            }
        }
    }
}

/// The shape that the first elements make.
fn first_sizes(value: Value<'_>, lists: &[u32]) -> Vec<usize> {
    let mut cursor = Cursor::new(value.text);
    let mut sizes = Vec::new();
    while cursor.eat(b'[') {
        // The first list of each level opens right after the one around it.
        let size = lists.get(sizes.len()).copied().unwrap_or(0) as usize;
        sizes.push(size);
        if size == 0 {
            break;
        }
        cursor.skip_space();
    }
    sizes
}

/// Holds every list and element to `sizes`; returns the number of elements.
fn walk(value: Value<'_>, dtype: DType, sizes: &[usize], lists: &[u32]) -> Result<usize, Refusal> {
    let rank = sizes.len();
    let mut cursor = Cursor::new(value.text);
    let mut lists = lists.iter();
    let (mut level, mut count) = (0, 0);
    loop {
        if cursor.peek() == b'[' {
            if level >= rank {
                return Err(Refusal::invalid(format!(
                    "Encountered list at unexpected level: {level} expected < {rank}"
                )));
            }
            let size = lists.next().copied().unwrap_or(0) as usize;
            if size != sizes[level] {
                return Err(Refusal::invalid(format!(
                    "Encountered list at unexpected size: {size} at level: {level} expected size: {}",
                    sizes[level]
                )));
            }
            cursor.skip(1);
            cursor.skip_space();
            level += 1;
            if size > 0 {
                continue;
            }
        } else {
            let start = cursor.at();
            scan::skip_value(&mut cursor)?;
            let leaf = Value { text: cursor.since(start) };
            if level != rank {
                let after = format!(
                    " found at incorrect level: {} in the JSON DOM. Expected at level: {rank}",
                    level + 1
                );
                return Err(Refusal::quoting("JSON Value: ", leaf, &after));
            }
            check_element(leaf, dtype)?;
            count += 1;
        }
        loop {
            if level == 0 {
                return Ok(count);
            }
            cursor.skip_space();
            if cursor.eat(b',') {
                cursor.skip_space();
                break;
            }
            cursor.eat(b']');
            level -= 1;
        }
    }
}

/// Whether an element, which is no list, is one of `dtype`.
fn check_element(leaf: Value<'_>, dtype: DType) -> Result<(), Refusal> {
    let kind = leaf.kind();
    let wrong_type = || {
        let after = format!(" Type: {} is not of expected type: {dtype}", kind.name());
        Err(Refusal::quoting("JSON Value: ", leaf, &after))
    };
    if kind == Kind::Object {
        return if dtype == DType::String { check_base64(leaf) } else { wrong_type() };
    }
    let number = || Cursor::new(leaf.text).number().ok();
    let integer_in = |min: i128, max: i128| {
        let value = number().and_then(|number| number.integer());
        kind == Kind::Number && value.is_some_and(|value| (min..=max).contains(&value))
    };
    let fits = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => kind == Kind::Number,
        DType::I32 | DType::I16 | DType::I8 | DType::U8 => {
            integer_in(i32::MIN.into(), i32::MAX.into())
        }
        DType::I64 => integer_in(i64::MIN.into(), i64::MAX.into()),
        DType::U16 => integer_in(0, u16::MAX.into()),
        DType::U32 => integer_in(0, u32::MAX.into()),
        DType::U64 => integer_in(0, u64::MAX.into()),
        DType::Bool => matches!(kind, Kind::True | Kind::False),
        DType::String => kind == Kind::String,
        _ => {
            let quoted =
                Refusal::quoting("Conversion of JSON Value: ", leaf, &format!(" to type: {dtype}"));
            return Err(Refusal { code: Code::Unimplemented, ..quoted });
        }
    };
    if fits { Ok(()) } else { wrong_type() }
}

fn check_base64(leaf: Value<'_>) -> Result<(), Refusal> {
    let Some(text) = leaf.as_base64() else {
        let after = " not formatted correctly for base64 data";
        return Err(Refusal::quoting("JSON Value: ", leaf, after));
    };
    match text::decode_base64(&text.unescaped()) {
        Some(_) => Ok(()),
        None => Err(Refusal::invalid("Unable to base64 decode")),
    }
}
