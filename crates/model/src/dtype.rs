//! Element types. Owns their names, widths and TensorFlow numbers; knows no wire encoding.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $width:expr;)*) => {
        /// The type of one tensor element.
        ///
        /// Numbers and lower-case names are those of TensorFlow's `DataType`, since they are part
        /// of error texts and metadata that clients read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every dtype, in the order of its number.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// The number of this dtype in TensorFlow's `DataType` enumeration.
            pub const fn number(self) -> i32 { match self { $(DType::$variant => $number,)* } }

            /// The dtype with this TensorFlow number; `None` for unknown and reference numbers.
            pub const fn from_number(number: i32) -> Option<DType> {
                match number { $($number => Some(DType::$variant),)* _ => None }
            }

            /// The lower-case name that TensorFlow prints, such as `float` or `int64`.
            pub const fn name(self) -> &'static str { match self { $(DType::$variant => $name,)* } }

            /// Bytes per element, or `None` where elements have no fixed width of whole bytes
            /// (strings, resources, variants, sub-byte integers, the invalid dtype).
            pub const fn width(self) -> Option<usize> { match self { $(DType::$variant => $width,)* } }
        }
    };
}

dtypes! {
    /// No dtype: what a missing field means. Signatures of init operators carry it.
    Invalid = 0, "INVALID", None;
    /// IEEE 754 binary32.
    F32 = 1, "float", Some(4);
    /// IEEE 754 binary64.
    F64 = 2, "double", Some(8);
    /// 32-bit signed integer.
    I32 = 3, "int32", Some(4);
    /// 8-bit unsigned integer.
    U8 = 4, "uint8", Some(1);
    /// 16-bit signed integer.
    I16 = 5, "int16", Some(2);
    /// 8-bit signed integer.
    I8 = 6, "int8", Some(1);
    /// Byte strings of any length.
    String = 7, "string", None;
    /// Two binary32: real, imaginary.
    Complex64 = 8, "complex64", Some(8);
    /// 64-bit signed integer.
    I64 = 9, "int64", Some(8);
    /// One byte, 0 or 1.
    Bool = 10, "bool", Some(1);
    /// Quantised 8-bit signed integer.
    QI8 = 11, "qint8", Some(1);
    /// Quantised 8-bit unsigned integer.
    QU8 = 12, "quint8", Some(1);
    /// Quantised 32-bit signed integer.
    QI32 = 13, "qint32", Some(4);
    /// The upper half of a binary32.
    BF16 = 14, "bfloat16", Some(2);
    /// Quantised 16-bit signed integer.
    QI16 = 15, "qint16", Some(2);
    /// Quantised 16-bit unsigned integer.
    QU16 = 16, "quint16", Some(2);
    /// 16-bit unsigned integer.
    U16 = 17, "uint16", Some(2);
    /// Two binary64: real, imaginary.
    Complex128 = 18, "complex128", Some(16);
    /// IEEE 754 binary16.
    F16 = 19, "half", Some(2);
    /// A handle to state inside an engine.
    Resource = 20, "resource", None;
    /// Anything an engine keeps to itself.
    Variant = 21, "variant", None;
    /// 32-bit unsigned integer.
    U32 = 22, "uint32", Some(4);
    /// 64-bit unsigned integer.
    U64 = 23, "uint64", Some(8);
    /// 8-bit float, 5 exponent bits.
    F8E5M2 = 24, "float8_e5m2", Some(1);
    /// 8-bit float, 4 exponent bits.
    F8E4M3FN = 25, "float8_e4m3fn", Some(1);
    /// 8-bit float, 4 exponent bits, no negative zero.
    F8E4M3FNUZ = 26, "float8_e4m3fnuz", Some(1);
    /// 8-bit float, 4 exponent bits, bias 11, no negative zero.
    F8E4M3B11FNUZ = 27, "float8_e4m3b11fnuz", Some(1);
    /// 8-bit float, 5 exponent bits, no negative zero.
    F8E5M2FNUZ = 28, "float8_e5m2fnuz", Some(1);
    /// 4-bit signed integer.
    I4 = 29, "int4", None;
    /// 4-bit unsigned integer.
    U4 = 30, "uint4", None;
    /// 2-bit signed integer.
    I2 = 31, "int2", None;
    /// 2-bit unsigned integer.
    U2 = 32, "uint2", None;
    /// 4-bit float, 2 exponent bits.
    F4E2M1FN = 33, "float4_e2m1fn", None;
}

impl DType {
    /// What TensorFlow adds to a dtype's number for a reference to a variable of it.
    pub const REFERENCE_OFFSET: i32 = 100;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_are_unique() {
        for &dtype in DType::ALL {
            assert_eq!(DType::from_number(dtype.number()), Some(dtype));
        }
        assert_eq!(DType::from_number(101), None);
        assert_eq!(DType::from_number(-1), None);
    }
}
