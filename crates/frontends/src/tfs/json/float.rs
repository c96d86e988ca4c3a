//! Floating-point numbers as text.
//!
//! Owns two styles: that of answers (C's `%g` with 6 digits if that reads back to the same number,
//! else with 9 or 17) and that of values quoted in error texts (the fewest digits that read back,
//! laid out as RapidJSON does).
//!
//! Six digits read back exactly when the shortest text has at most six, and then both are the same
//! digits, since any decimal of six digits survives a float. So one shortest conversion decides, and
//! only longer numbers need exact digits.

use std::io::Write as _;

/// Decimal digits and the power of ten of the first of them. No zeros at the end.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: [u8; DIGITS_MAX],
    len: usize,
    exponent: i32,
}

const DIGITS_MAX: usize = 20;
/// Digits of `%g`.
const SHORT: usize = 6;
/// Digits that tell any two floats apart.
const FLOAT_EXACT: usize = 9;
/// Digits that tell any two doubles apart.
const DOUBLE_EXACT: usize = 17;

impl Decimal {
    fn new() -> Decimal {
        Decimal { digits: [0; DIGITS_MAX], len: 0, exponent: 0 }
    }

    /// The digits of a positive number written as `12.5`, `0.001`, `1e30` or `1.5e-7`.
    fn of_text(text: &[u8]) -> Decimal {
        let mut decimal = Decimal::new();
        let mut before_point = 0i32;
        let mut point_seen = false;
        let mut leading_zeros = 0i32;
        let mut rest = text.iter();
        while let Some(&byte) = rest.next() {
            match byte {
                b'.' => point_seen = true,
                b'e' => {
                    before_point += exponent_of(rest.as_slice());
                    break;
                }
                digit => {
                    before_point += i32::from(!point_seen);
                    if decimal.len > 0 || digit != b'0' {
                        if let Some(slot) = decimal.digits.get_mut(decimal.len) {
                            *slot = digit;
                            decimal.len += 1;
                        }
                    } else {
                        leading_zeros += 1;
                    }
                }
            }
        }
        decimal.exponent = before_point - 1 - leading_zeros;
        decimal.without_zeros()
    }

    /// The digits of `number`, which has `count` digits, the first for 10 to the `exponent`.
    fn of_integer(mut number: u64, count: usize, exponent: i32) -> Decimal {
        let mut decimal = Decimal { digits: [0; DIGITS_MAX], len: count, exponent };
        for slot in decimal.digits[..count].iter_mut().rev() {
            *slot = b'0' + (number % 10) as u8;
            number /= 10;
        }
        decimal.without_zeros()
    }

    fn without_zeros(mut self) -> Decimal {
        while self.len > 1 && self.digits[self.len - 1] == b'0' {
            self.len -= 1;
        }
        self
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

fn exponent_of(text: &[u8]) -> i32 {
    let (sign, digits) = match text.split_first() {
        Some((b'-', digits)) => (-1, digits),
        Some((b'+', digits)) => (1, digits),
        _ => (1, text),
    };
    sign * digits.iter().fold(0, |sum, &digit| sum * 10 + i32::from(digit - b'0'))
}

/// `value`, positive, rounded to `count` digits, half to even; its first digit is for 10 to the
/// `exponent`. `significand_bits` is how many bits of it may be in use.
fn exact(value: f64, count: usize, exponent: i32, significand_bits: u32) -> Decimal {
    let bits = value.to_bits();
    let significand = (bits & ((1 << 52) - 1)) | 1 << 52;
    let trailing = significand.trailing_zeros().min(53 - significand_bits);
    let significand = significand >> trailing;
    let shift = 1075 - (bits >> 52) as i32 - trailing as i32;
    let scale = count as i32 - 1 - exponent;
    let power = u32::try_from(scale).ok().and_then(|scale| 10u128.checked_pow(scale));
    let product = power.and_then(|power| power.checked_mul(significand.into()));
    match product {
        Some(product) if (1..128).contains(&shift) => {
            let quotient = product >> shift;
            let rest = product & ((1u128 << shift) - 1);
            let half = 1u128 << (shift - 1);
            let up = rest > half || (rest == half && quotient & 1 == 1);
            let rounded = (quotient + u128::from(up)) as u64;
            if rounded == 10u64.pow(count as u32) {
                return Decimal::of_integer(1, 1, exponent + 1);
            }
            Decimal::of_integer(rounded, count, exponent)
        }
        _ => {
            let mut text = Vec::with_capacity(32);
            // Writing to memory does not fail.
            let _ = write!(text, "{value:.*e}", count - 1);
            Decimal::of_text(&text)
        }
    }
}

/// Lays digits out as `%g` of `precision` digits does, with `.0` where nothing else would show that
/// the number is no integer.
fn push_general(out: &mut Vec<u8>, decimal: &Decimal, precision: usize) {
    let digits = decimal.digits();
    let exponent = decimal.exponent;
    if exponent < -4 || exponent >= precision as i32 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let size = exponent.unsigned_abs();
        if size >= 100 {
            out.push(b'0' + (size / 100) as u8);
        }
        out.extend_from_slice(&[b'0' + (size / 10 % 10) as u8, b'0' + (size % 10) as u8]);
        return;
    }
    push_plain(out, digits, exponent);
}

/// Lays digits out without an exponent and with at least one digit after the point.
fn push_plain(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    let Ok(whole) = usize::try_from(exponent + 1) else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + exponent.unsigned_abs() as usize - 1, b'0');
        out.extend_from_slice(digits);
        return;
    };
    if whole == 0 {
        out.extend_from_slice(b"0.");
        out.extend_from_slice(digits);
    } else if whole >= digits.len() {
        out.extend_from_slice(digits);
        out.resize(out.len() + whole - digits.len(), b'0');
        out.extend_from_slice(b".0");
    } else {
        out.extend_from_slice(&digits[..whole]);
        out.push(b'.');
        out.extend_from_slice(&digits[whole..]);
    }
}

/// What all answers share: the sign, and the numbers that have no digits. Subnormal numbers are
/// zeros, as the original's threads flush them. `true` when nothing is left to write.
#[inline(always)]
fn push_special(out: &mut Vec<u8>, value: f64, is_zero: bool) -> bool {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return true;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        out.extend_from_slice(b"Infinity");
        return true;
    }
    if is_zero {
        out.extend_from_slice(b"0.0");
    }
    is_zero
}

/// Appends a float of an answer.
pub(crate) fn push_f32(out: &mut Vec<u8>, value: f32) {
    let is_zero = value == 0.0 || value.is_subnormal();
    if push_special(out, f64::from(value), is_zero) {
        return;
    }
    let value = value.abs();
    let mut buffer = zmij::Buffer::new();
    let shortest = Decimal::of_text(buffer.format_finite(value).as_bytes());
    if shortest.len <= SHORT {
        push_general(out, &shortest, SHORT);
    } else {
        let digits = exact(f64::from(value), FLOAT_EXACT, shortest.exponent, 24);
        push_general(out, &digits, FLOAT_EXACT);
    }
}

/// Appends a double of an answer.
pub(crate) fn push_f64(out: &mut Vec<u8>, value: f64) {
    if push_special(out, value, value == 0.0 || value.is_subnormal()) {
        return;
    }
    let value = value.abs();
    let mut buffer = zmij::Buffer::new();
    let shortest = Decimal::of_text(buffer.format_finite(value).as_bytes());
    if shortest.len <= SHORT {
        push_general(out, &shortest, SHORT);
    } else {
        let digits = exact(value, DOUBLE_EXACT, shortest.exponent, 53);
        push_general(out, &digits, DOUBLE_EXACT);
    }
}

/// Appends a double as C's `%g` does, as the metrics page has it.
pub(crate) fn push_six_digits(out: &mut Vec<u8>, value: f64) {
    if value == 0.0 || !value.is_finite() {
        // Writing to memory does not fail.
        let _ = write!(out, "{value}");
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let text = format!("{:.*e}", SHORT - 1, value.abs());
    let start = out.len();
    push_general(out, &Decimal::of_text(text.as_bytes()), SHORT);
    if out[start..].ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// Appends a finite double as error texts quote it.
pub(crate) fn push_quoted(out: &mut Vec<u8>, value: f64) {
    /// The largest and the smallest exponent that are laid out without one.
    const PLAIN: std::ops::RangeInclusive<i32> = -6..=20;
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value == 0.0 {
        out.extend_from_slice(b"0.0");
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let decimal = Decimal::of_text(buffer.format_finite(value.abs()).as_bytes());
    let digits = decimal.digits();
    if PLAIN.contains(&decimal.exponent) {
        push_plain(out, digits, decimal.exponent);
        return;
    }
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    // Writing to memory does not fail.
    let _ = write!(out, "e{}", decimal.exponent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f32) -> String {
        let mut out = Vec::new();
        push_f32(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        push_f64(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn quoted(value: f64) -> String {
        let mut out = Vec::new();
        push_quoted(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    /// C's `%.{precision}g`, from the library's exact conversions.
    fn general(value: f64, precision: usize) -> String {
        let text = format!("{value:.*e}", precision - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap();
        let exponent: i32 = exponent.parse().unwrap();
        let strip = |text: &str| {
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text.to_owned()
            }
        };
        if exponent < -4 || exponent >= precision as i32 {
            let sign = if exponent < 0 { '-' } else { '+' };
            return format!("{}e{sign}{:02}", strip(mantissa), exponent.abs());
        }
        let decimals = (precision as i32 - 1 - exponent) as usize;
        strip(&format!("{value:.decimals$}"))
    }

    fn with_point(text: String) -> String {
        if text.contains(['.', 'e']) { text } else { text + ".0" }
    }

    fn slow_float(value: f32) -> String {
        let short = general(value.into(), 6);
        let read: f32 = short.parse().unwrap();
        with_point(if read == value { short } else { general(value.into(), 9) })
    }

    fn slow_double(value: f64) -> String {
        let short = general(value, 6);
        let read: f64 = short.parse().unwrap();
        with_point(if read == value { short } else { general(value, 17) })
    }

    #[test]
    fn known_texts() {
        for (value, text) in [
            (0.1, "0.1"),
            (1.0 / 3.0, "0.333333343"),
            (3.0, "3.0"),
            (9e6, "9e+06"),
            (16_777_216.0, "16777216.0"),
            (1e10, "1e+10"),
            (-0.0, "-0.0"),
            (123_456_789.0, "123456792.0"),
            (1_435_774_380.0, "1.43577434e+09"),
            (65504.0, "65504.0"),
            (f32::MAX, "3.40282347e+38"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-Infinity"),
            (1e-40, "0.0"),
            (2.000_005, "2.00000501"),
            (0.0003, "0.0003"),
            (3e-5, "3e-05"),
            (555_557.5, "555557.5"),
            (6.172_839_5e28, "6.17283946e+28"),
        ] {
            assert_eq!(float(value), text);
        }
        for (value, text) in [
            (1.0 / 3.0, "0.33333333333333331"),
            (41_152.263_020_833_33, "41152.263020833328"),
            (1.5e300, "1.5e+300"),
            (1e15, "1e+15"),
            (123_456_789.0, "123456789.0"),
            (1_435_774_380.0, "1435774380.0"),
            (1e-5, "1e-05"),
            (-1e-320, "-0.0"),
        ] {
            assert_eq!(double(value), text);
        }
        for (value, text) in
            [(10.0, "10"), (188.9568, "188.957"), (1.47476e9, "1.47476e+09"), (-0.5, "-0.5")]
        {
            let mut out = Vec::new();
            push_six_digits(&mut out, value);
            assert_eq!(out, text.as_bytes());
        }
        for (value, text) in [
            (100.0, "100.0"),
            (1_000_000.0, "1000000.0"),
            (1e20, "100000000000000000000.0"),
            (1e21, "1e21"),
            (1.25e-7, "1.25e-7"),
            (0.000_001, "0.000001"),
            (-3.5, "-3.5"),
            (1e100, "1e100"),
        ] {
            assert_eq!(quoted(value), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn floats_are_as_c_prints_them(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_normal());
            prop_assert_eq!(float(value), slow_float(value));
        }

        #[test]
        fn usual_floats_are_as_c_prints_them(value in -1e7f32..1e7) {
            prop_assume!(value.is_normal());
            prop_assert_eq!(float(value), slow_float(value));
            let fraction = value / 1e7;
            prop_assert_eq!(float(fraction), slow_float(fraction));
            prop_assert_eq!(float(value.round()), with_point(slow_float(value.round())));
        }

        #[test]
        fn doubles_are_as_c_prints_them(bits in any::<u64>(), usual in -1e3f64..1e3) {
            for value in [f64::from_bits(bits), usual, usual / 1e4, usual * 1e5, usual.round()] {
                if value.is_normal() {
                    prop_assert_eq!(double(value), slow_double(value));
                }
            }
        }
    }
}
