//! Functions of one float that are too exact for a composition of ONNX's operators.
//!
//! Invariant: a result is the function of the element in double precision, rounded once to the
//! element's own.

use vesta_model::{DType, Status, Tensor};

use super::elements::{elements, tensor};

/// A function of a double.
pub(super) type Function = fn(f64) -> f64;

/// The function of a TensorFlow operator.
pub(super) fn find(op: &str) -> Option<Function> {
    Some(match op {
        "Acosh" => f64::acosh,
        "Asinh" => libm::asinh,
        "Atanh" => f64::atanh,
        "Erfc" => libm::erfc,
        "Expm1" => f64::exp_m1,
        "Log1p" => f64::ln_1p,
        _ => return None,
    })
}

/// The function of every element.
///
/// # Errors
/// `INTERNAL` for another dtype than float or double.
pub(super) fn compute(function: Function, input: &Tensor) -> Result<Tensor, Status> {
    let shape = input.shape().clone();
    match input.dtype() {
        DType::F32 => {
            let values = elements::<f32>(input)?;
            // Subnormal numbers are zero to TensorFlow's threads.
            let of = |&value: &f32| {
                let value = if value.is_subnormal() { value * 0.0 } else { value };
                let result = function(f64::from(value)) as f32;
                if result.is_subnormal() { result * 0.0 } else { result }
            };
            tensor(shape, values.iter().map(of).collect())
        }
        DType::F64 => {
            let values = elements::<f64>(input)?;
            tensor(shape, values.iter().map(|&value| function(value)).collect::<Vec<f64>>())
        }
        dtype => Err(Status::internal(format!("no function of {dtype} is known here"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::Shape;

    #[test]
    fn small_values_are_not_lost() {
        let of = |op: &str, value: f32| {
            let input = Tensor::of(Shape::scalar(), &[value]).unwrap();
            compute(find(op).unwrap(), &input).unwrap().to_vec::<f32>().unwrap()[0]
        };
        assert_eq!(of("Erfc", 5.0), 1.537_459_8e-12);
        assert!((of("Expm1", 1e-7) / 1e-7 - 1.0).abs() < 1e-6);
        assert!((of("Log1p", 1e-7) / 1e-7 - 1.0).abs() < 1e-6);
        assert_eq!(of("Asinh", -1e-7), -1e-7);
        assert!(of("Acosh", 0.5).is_nan());
        assert_eq!(of("Atanh", 1.0), f32::INFINITY);
    }
}
