//! Tensors of the vocabulary to the runtime's bytes and back.
//!
//! Invariant: what the runtime wrote is checked before it is believed.

use std::sync::Arc;

use vesta_model::{AlignedBytes, DType, Memory, Shape, Status, StringsBuilder, Tensor};

/// Bytes of a number in the layout of strings.
const WORD: usize = 4;

/// The bytes of an input, aligned as the runtime wants them.
pub(super) enum Fed {
    /// Where they lie.
    InPlace(Tensor),
    /// Copied.
    Made(AlignedBytes),
}

impl Fed {
    /// # Errors
    /// `INVALID_ARGUMENT` for strings of more than 2 GB.
    pub(super) fn of(tensor: Tensor) -> Result<Fed, Status> {
        if tensor.dtype() == DType::String {
            return Ok(Fed::Made(strings(&tensor)?));
        }
        if tensor.dtype() == DType::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
            // C++ knows no others; clients may have sent one.
            let bytes: Vec<u8> = tensor.bytes().iter().map(|&byte| u8::from(byte != 0)).collect();
            return Ok(Fed::Made(AlignedBytes::copy_of(&bytes)));
        }
        if tensor.bytes().as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT) {
            return Ok(Fed::InPlace(tensor));
        }
        Ok(Fed::Made(AlignedBytes::copy_of(tensor.bytes())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Fed::InPlace(tensor) => tensor.bytes(),
            Fed::Made(bytes) => bytes.bytes(),
        }
    }
}

/// Strings as the runtime has them: their count, the place of each and of the end, then their bytes.
fn strings(tensor: &Tensor) -> Result<AlignedBytes, Status> {
    let view = tensor.strings().ok_or_else(|| Status::internal("a tensor of strings has none"))?;
    let too_large = || Status::invalid_argument("a tensor of strings takes more than 2 GB");
    let table =
        view.len().checked_add(2).and_then(|n| n.checked_mul(WORD)).ok_or_else(too_large)?;
    let length = table.checked_add(tensor.string_payload_bytes()).ok_or_else(too_large)?;
    i32::try_from(length).map_err(|_| too_large())?;
    let mut memory = AlignedBytes::zeroed(length);
    let (head, payload) = memory.bytes_mut().split_at_mut(table);
    let mut words = head.chunks_exact_mut(WORD);
    let mut put = |number: usize| {
        if let (Some(word), Ok(number)) = (words.next(), u32::try_from(number)) {
            word.copy_from_slice(&number.to_le_bytes());
        }
    };
    put(view.len());
    let mut end = 0;
    for text in view.iter() {
        put(table + end);
        payload[end..end + text.len()].copy_from_slice(text);
        end += text.len();
    }
    put(table + end);
    Ok(memory)
}

/// The output called `alias` out of what the runtime wrote.
///
/// # Errors
/// `INTERNAL` when it is not what its sizes say.
pub(super) fn given(
    alias: &str,
    dtype: DType,
    dims: &[i32],
    memory: AlignedBytes,
) -> Result<Tensor, Status> {
    let dims: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let wrong =
        || Status::internal(format!("LiteRT gave output {alias} in a form that is not its"));
    let shape = Shape::new(dims.ok_or_else(wrong)?)?;
    if dtype == DType::String {
        let strings = read_strings(memory.bytes(), shape.elements()).ok_or_else(wrong)?;
        return Tensor::of_strings(shape, &strings);
    }
    let bytes = shape.bytes(dtype.width().ok_or_else(wrong)?)?;
    if bytes > memory.bytes().len() {
        return Err(wrong());
    }
    Tensor::new(dtype, shape, Arc::new(memory), 0..bytes)
}

/// Strings in the layout of the runtime; `None` when it is none, or of another number of them.
pub(super) fn read_strings(bytes: &[u8], count: usize) -> Option<StringsBuilder> {
    let word = |index: usize| {
        let at = index.checked_mul(WORD)?;
        let word = bytes.get(at..at.checked_add(WORD)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(word)).ok()
    };
    let mut strings = StringsBuilder::new();
    if count == 0 {
        return Some(strings);
    }
    if word(0)? != count {
        return None;
    }
    for index in 1..=count {
        strings.push(bytes.get(word(index)?..word(index + 1)?)?);
    }
    Some(strings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_round_trip(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20)) {
            let mut builder = StringsBuilder::new();
            texts.iter().for_each(|text| builder.push(text));
            let tensor = Tensor::of_strings(Shape::vector(texts.len()), &builder).unwrap();
            let bytes = strings(&tensor).unwrap();
            let dims = [i32::try_from(texts.len()).unwrap()];
            prop_assert_eq!(given("y", DType::String, &dims, bytes).unwrap(), tensor);
        }

        #[test]
        fn garbage_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..9) {
            read_strings(&noise, count);
        }
    }

    #[test]
    fn sizes_are_not_believed() {
        let memory = || AlignedBytes::zeroed(8);
        assert!(given("y", DType::F32, &[2], memory()).is_ok());
        assert!(given("y", DType::F32, &[3], memory()).is_err());
        assert!(given("y", DType::F32, &[-1], memory()).is_err());
    }
}
