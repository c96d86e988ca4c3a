//! What engines are tried on, where no requests of a version were recorded.
//!
//! Owns: sizes and values drawn for a signature. May not know: any engine.
//! Invariant: the same signature gives the same inputs at every start, and none that takes more than
//! [`INPUT_BYTES_MAX`].

use half::{bf16, f16};
use vesta_model::{
    AlignedBytes, DType, Encoding, InputLayout, Memory as _, PartialShape, RunRequest, Shape,
    Signature, Tensor, TensorSpec,
};

/// The most bytes of one input.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// What random numbers begin with; any number would do, as long as it stays.
const SEED: u64 = 0x5645_5354_4100;

/// Open sizes that stand for height and width.
const IMAGE_SIZE: usize = 224;

/// Other open sizes behind the first, such as a sequence's length.
const INNER_SIZE: usize = 16;

/// A way to draw inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// What stands for an open first size.
    pub(crate) rows: usize,
    /// Whether other open sizes are 1, rather than those of a usual image or text.
    pub(crate) is_small: bool,
    /// Whole numbers are smaller than this.
    pub(crate) ids_end: u8,
}

/// Ways to draw inputs of one row, best first: the next is for signatures that refuse the one before.
/// Ids are small since each must be in a table of unknown length, often one of two kinds of segments.
pub(crate) const DRAWS: &[Draw] = &[
    Draw { rows: 1, is_small: false, ids_end: 8 },
    Draw { rows: 1, is_small: false, ids_end: 2 },
    Draw { rows: 1, is_small: true, ids_end: 2 },
];

/// A run for trial.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) request: RunRequest,
    pub(crate) inputs: Vec<Tensor>,
}

/// Inputs for a signature, and the run over them.
///
/// # Errors
/// Which input cannot be drawn, and why.
pub(crate) fn draw(signature: &Signature, draw: Draw) -> Result<Drawn, String> {
    let inputs: Vec<Tensor> = signature
        .inputs
        .iter()
        .enumerate()
        .map(|(index, spec)| input(spec, draw, SEED + index as u64))
        .collect::<Result<_, String>>()?;
    let request = RunRequest {
        signature: signature.name.clone(),
        inputs: inputs.iter().map(InputLayout::of).collect(),
        outputs: (0..signature.outputs.len()).collect(),
    };
    Ok(Drawn { request, inputs })
}

/// Whether the number of rows changes what is drawn.
pub(crate) fn has_open_rows(signature: &Signature) -> bool {
    let is_open = |spec: &TensorSpec| match &spec.shape {
        PartialShape::Ranked(dims) => dims.first() == Some(&None),
        PartialShape::Unknown => true,
    };
    signature.inputs.iter().any(|spec| spec.default.is_none() && is_open(spec))
}

fn input(spec: &TensorSpec, draw: Draw, seed: u64) -> Result<Tensor, String> {
    if let Some(default) = &spec.default {
        return Ok(default.clone());
    }
    let alias = &spec.alias;
    if !matches!(spec.encoding, Encoding::Dense(_)) {
        return Err(format!("input {alias} is no dense tensor"));
    }
    let dtype = spec.fed_dtype();
    let Some(width) = dtype.width() else {
        return Err(format!("input {alias} holds {dtype}, of which nobody can guess any"));
    };
    let shape = Shape::new(sizes(&spec.shape, draw)).map_err(|status| status.to_string())?;
    let bytes = shape.bytes(width).map_err(|status| status.to_string())?;
    if bytes > INPUT_BYTES_MAX {
        return Err(format!("input {alias} takes {bytes} bytes"));
    }
    let mut memory = AlignedBytes::zeroed(bytes);
    let mut random = fastrand::Rng::with_seed(seed);
    fill(memory.bytes_mut(), dtype, draw.ids_end, &mut random)
        .ok_or_else(|| format!("input {alias} holds {dtype}, which is not drawn"))?;
    Tensor::copied(dtype, shape, memory.bytes()).map_err(|status| status.to_string())
}

fn sizes(shape: &PartialShape, draw: Draw) -> Vec<usize> {
    let PartialShape::Ranked(dims) = shape else {
        // Feeds of an unknown rank are most often lists.
        return vec![draw.rows];
    };
    let is_image = dims.len() == 4;
    let size = |(index, size): (usize, &Option<usize>)| match (size, index) {
        (Some(size), _) => *size,
        (None, 0) => draw.rows,
        (None, _) if draw.is_small => 1,
        (None, _) if is_image => IMAGE_SIZE,
        (None, _) => INNER_SIZE,
    };
    dims.iter().enumerate().map(size).collect()
}

/// Random elements: floats from 0 up to 1, which no logarithm or root refuses, whole numbers below
/// `ids_end`, but bytes of all values, since they are most often pixels. `None` for other dtypes.
fn fill(bytes: &mut [u8], dtype: DType, ids_end: u8, random: &mut fastrand::Rng) -> Option<()> {
    match dtype {
        DType::F32 | DType::Complex64 => put(bytes, || random.f32().to_le_bytes()),
        DType::F64 | DType::Complex128 => put(bytes, || random.f64().to_le_bytes()),
        DType::F16 => put(bytes, || f16::from_f32(random.f32()).to_le_bytes()),
        DType::BF16 => put(bytes, || bf16::from_f32(random.f32()).to_le_bytes()),
        DType::U8 => put(bytes, || [random.u8(..)]),
        DType::Bool => put(bytes, || [u8::from(random.bool())]),
        DType::I8 => put(bytes, || [random.u8(..ids_end)]),
        DType::I16 | DType::U16 => put(bytes, || u16::from(random.u8(..ids_end)).to_le_bytes()),
        DType::I32 | DType::U32 => put(bytes, || u32::from(random.u8(..ids_end)).to_le_bytes()),
        DType::I64 | DType::U64 => put(bytes, || u64::from(random.u8(..ids_end)).to_le_bytes()),
        _ => return None,
    }
    Some(())
}

fn put<const N: usize>(bytes: &mut [u8], mut next: impl FnMut() -> [u8; N]) {
    for element in bytes.chunks_exact_mut(N) {
        element.copy_from_slice(&next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Draw = DRAWS[0];

    fn dense(alias: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec::dense(alias, dtype).with_shape(PartialShape::Ranked(dims.to_vec()))
    }

    fn drawn(spec: TensorSpec, how: Draw) -> Result<Tensor, String> {
        let signature = Signature::new("s", "", vec![spec], vec![]);
        Ok(draw(&signature, how)?.inputs.remove(0))
    }

    #[test]
    fn open_sizes_are_those_of_usual_inputs() {
        let dims = |shape: &[Option<usize>], how| {
            drawn(dense("x", DType::F32, shape), how).unwrap().shape().dims().to_vec()
        };
        assert_eq!(dims(&[None, None, None, Some(3)], FIRST), [1, 224, 224, 3]);
        assert_eq!(dims(&[Some(2), None], FIRST), [2, 16]);
        assert_eq!(dims(&[None, Some(5)], Draw { rows: 3, ..FIRST }), [3, 5]);
        assert_eq!(dims(&[None, None], Draw { is_small: true, ..FIRST }), [1, 1]);
        assert_eq!(dims(&[], FIRST), [0usize; 0]);
        let unknown = TensorSpec::dense("x", DType::F32);
        assert_eq!(drawn(unknown, FIRST).unwrap().shape().dims(), [1]);
    }

    #[test]
    fn values_are_small_and_the_same_each_time() {
        let floats = drawn(dense("x", DType::F32, &[Some(500)]), FIRST).unwrap();
        let values = floats.to_vec::<f32>().unwrap();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value > 0.5));
        assert_eq!(floats, drawn(dense("x", DType::F32, &[Some(500)]), FIRST).unwrap());
        for (how, end) in [(FIRST, 8), (DRAWS[1], 2)] {
            let ids = drawn(dense("x", DType::I64, &[Some(500)]), how).unwrap();
            let ids = ids.to_vec::<i64>().unwrap();
            assert!(ids.iter().all(|id| (0..end).contains(id)) && ids.contains(&(end - 1)));
        }
        for &dtype in DType::ALL {
            let outcome = drawn(dense("x", dtype, &[Some(4)]), FIRST);
            assert_eq!(outcome.is_ok(), outcome.as_ref().is_ok_and(|t| t.dtype() == dtype));
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let of = |spec| drawn(spec, FIRST).unwrap_err();
        assert!(of(dense("text", DType::String, &[None])).contains("input text holds string"));
        assert!(of(dense("x", DType::F32, &[Some(1 << 40)])).contains("input x takes"));
        assert!(of(dense("q", DType::QI8, &[Some(1)])).contains("input q"));
    }

    #[test]
    fn defaults_are_taken_as_they_are() {
        let default = Tensor::of(Shape::scalar(), &[7i64]).unwrap();
        let spec = TensorSpec { default: Some(default.clone()), ..dense("n", DType::I64, &[None]) };
        assert!(!has_open_rows(&Signature::new("s", "", vec![spec.clone()], vec![])));
        assert_eq!(drawn(spec, FIRST).unwrap(), default);
    }
}
