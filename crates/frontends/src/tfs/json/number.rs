//! Numbers in JSON. Owns their reading in one pass over the bytes and their conversion to each
//! type; the general case of decimal to binary is the standard library's.
//!
//! Kept from the original: its threads flush subnormal numbers to zero, so they are read as zeros;
//! a float is read as a double first; `-0` is the integer 0; a number is an integer if it is
//! written as one and fits 64 bits.

use std::cmp::Ordering;

use super::cursor::{Cursor, Fault, SyntaxError};

/// A number token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    /// The token.
    pub(crate) text: &'a [u8],
    form: Form,
    negative: bool,
    /// Whether `mantissa` holds every digit.
    exact: bool,
    /// All digits, those after the point too.
    mantissa: u64,
    /// The power of ten that `mantissa` is to be multiplied by.
    exponent: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Integer,
    Decimal,
    NotANumber,
    Infinity,
}

/// Digits that always fit a `u64`.
const DIGITS_EXACT: usize = 19;
/// The largest exponent that cannot overflow a double whatever its digits, as the original counts.
const EXPONENT_SAFE: i32 = 308;

/// Powers of ten that doubles hold exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Reads the number at the cursor.
#[inline(always)]
pub(super) fn read<'a>(cursor: &mut Cursor<'a>) -> Result<Number<'a>, SyntaxError> {
    let start = cursor.at();
    let negative = cursor.eat(b'-');
    let mut mantissa = 0u64;
    let mut digits = 0;
    match cursor.peek() {
        b'0' => cursor.skip(1),
        b'1'..=b'9' => digits = read_digits(cursor, &mut mantissa),
        b'N' | b'I' => return read_word(cursor, start, negative),
        _ => return Err(cursor.fault(Fault::ValueInvalid)),
    }
    let integer_digits = digits;
    let mut form = Form::Integer;
    let mut exponent = 0;
    if cursor.eat(b'.') {
        form = Form::Decimal;
        let fraction = read_digits(cursor, &mut mantissa);
        if fraction == 0 {
            return Err(cursor.fault(Fault::NumberWithoutFraction));
        }
        digits += fraction;
        exponent = -i32::try_from(fraction).unwrap_or(i32::MAX);
    }
    let mut too_big = integer_digits > EXPONENT_SAFE as usize;
    if matches!(cursor.peek(), b'e' | b'E') {
        form = Form::Decimal;
        let written = read_exponent(cursor)?;
        too_big |= written > EXPONENT_SAFE;
        exponent = exponent.saturating_add(written);
    }
    let text = cursor.since(start);
    if too_big && overflows(text) {
        return Err(SyntaxError { fault: Fault::NumberTooBig, offset: start });
    }
    Ok(Number { text, form, negative, exact: digits <= DIGITS_EXACT, mantissa, exponent })
}

/// Adds the digits at the cursor to `mantissa`, which wraps around when they are too many.
#[inline(always)]
fn read_digits(cursor: &mut Cursor<'_>, mantissa: &mut u64) -> usize {
    let start = cursor.at();
    while let Some(word) = cursor.peek_word() {
        let Some(eight) = eight_digits(word) else { break };
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
        cursor.skip(8);
    }
    while let digit @ b'0'..=b'9' = cursor.peek() {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        cursor.skip(1);
    }
    cursor.at() - start
}

/// The value of eight digits, the first in the lowest byte; `None` when one is no digit.
#[inline(always)]
fn eight_digits(word: u64) -> Option<u64> {
    const SIXES: u64 = 0x0606_0606_0606_0606;
    const UPPER: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const THREES: u64 = 0x3030_3030_3030_3030;
    // A byte is a digit when its upper half is 3 both as it is and after 6 is added.
    if word & UPPER != THREES || word.wrapping_add(SIXES) & UPPER != THREES {
        return None;
    }
    // Neighbours are joined: digits to pairs, pairs to fours, fours to the whole.
    let digits = word - THREES;
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF)
}

/// The exponent at the cursor, cut to a size at which every number is zero or an overflow.
fn read_exponent(cursor: &mut Cursor<'_>) -> Result<i32, SyntaxError> {
    cursor.skip(1);
    let negative = !cursor.eat(b'+') && cursor.eat(b'-');
    if !cursor.peek().is_ascii_digit() {
        return Err(cursor.fault(Fault::NumberWithoutExponent));
    }
    let mut exponent = 0i32;
    while let digit @ b'0'..=b'9' = cursor.peek() {
        exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
        cursor.skip(1);
    }
    Ok(if negative { -exponent } else { exponent })
}

/// `NaN`, `Inf` or `Infinity`. Like the original, it takes letters of `NaN` before one of the
/// others for nothing.
#[cold]
fn read_word<'a>(
    cursor: &mut Cursor<'a>,
    start: usize,
    negative: bool,
) -> Result<Number<'a>, SyntaxError> {
    let form = if cursor.eat(b'N') && cursor.eat(b'a') && cursor.eat(b'N') {
        Form::NotANumber
    } else if cursor.eat(b'I') && cursor.eat(b'n') && cursor.eat(b'f') {
        if cursor.peek() == b'i' {
            cursor.literal(b"inity")?;
        }
        Form::Infinity
    } else {
        return Err(cursor.fault(Fault::ValueInvalid));
    };
    let text = cursor.since(start);
    Ok(Number { text, form, negative, exact: true, mantissa: 0, exponent: 0 })
}

/// Whether the original refuses a number as too big. It looks at the exponent against the number of
/// digits it took in, not at the value: `9e308` passes and is infinite, `0e309` does not.
#[cold]
fn overflows(text: &[u8]) -> bool {
    const TENTH_OF_MAX: f64 = 1.797_693_134_862_315_7e307;
    const MANTISSA_MAX: u64 = (1 << 53) - 1;
    const SIGNIFICANT_MAX: usize = 17;
    let negative = text.first() == Some(&b'-');
    let mut rest = text.iter().skip(usize::from(negative)).copied().peekable();
    let digit = |rest: &mut std::iter::Peekable<_>| {
        rest.next_if(u8::is_ascii_digit).map(|byte: u8| u64::from(byte - b'0'))
    };
    let limit = if negative { 1 << 63 } else { u64::MAX };
    let (mut whole, mut value, mut big, mut significant) = (0u64, 0f64, false, 0usize);
    let mut first = true;
    while let Some(next) = digit(&mut rest) {
        let sum = whole.checked_mul(10).and_then(|sum| sum.checked_add(next));
        match sum.filter(|&sum| !big && sum <= limit) {
            Some(sum) => {
                whole = sum;
                value = sum as f64;
                significant += usize::from(!first);
            }
            None => {
                big = true;
                if value >= TENTH_OF_MAX {
                    return true;
                }
                value = value * 10.0 + next as f64;
            }
        }
        first = false;
    }
    let mut fraction = 0i32;
    if rest.next_if_eq(&b'.').is_some() {
        while let Some(next) = digit(&mut rest) {
            if !big && whole <= MANTISSA_MAX {
                whole = whole * 10 + next;
                value = whole as f64;
                fraction += 1;
                significant += usize::from(whole != 0);
            } else if significant < SIGNIFICANT_MAX {
                big = true;
                value = value * 10.0 + next as f64;
                fraction += 1;
                significant += usize::from(value > 0.0);
            } else {
                big = true;
            }
        }
    }
    let mut exponent = 0i32;
    if rest.next_if(|&byte| byte == b'e' || byte == b'E').is_some() {
        if rest.next_if_eq(&b'-').is_some() {
            return false;
        }
        rest.next_if_eq(&b'+');
        while let Some(next) = digit(&mut rest) {
            let next = i32::try_from(next).unwrap_or(0);
            exponent = exponent.saturating_mul(10).saturating_add(next);
        }
    }
    exponent > EXPONENT_SAFE.saturating_add(fraction)
}

impl Number<'_> {
    /// The value, if it is written as an integer and fits 64 bits, signed or unsigned.
    pub(crate) fn integer(&self) -> Option<i128> {
        if self.form != Form::Integer {
            return None;
        }
        let magnitude = if self.exact {
            i128::from(self.mantissa)
        } else {
            let digits = self.text.strip_prefix(b"-").unwrap_or(self.text);
            i128::from(std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?)
        };
        let value = if self.negative { -magnitude } else { magnitude };
        (value >= i128::from(i64::MIN)).then_some(value)
    }

    /// The value as a double, correctly rounded; subnormal values are zero.
    pub(crate) fn to_f64(self) -> f64 {
        let value = match self.form {
            Form::NotANumber => return f64::NAN,
            Form::Infinity => f64::INFINITY,
            _ if self.exact && self.mantissa <= 1 << 53 => match self.scaled() {
                Some(value) => value,
                None => return self.parsed(),
            },
            _ => return self.parsed(),
        };
        self.signed(value)
    }

    /// The value as a float, by way of a double; subnormal values are zero.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        if matches!(self.form, Form::Decimal | Form::Integer)
            && self.exact
            && let Some(value) = self.scaled()
            && !near_float_tie(value)
        {
            // At least 1e-22 or 0, so never subnormal.
            return self.signed(value) as f32;
        }
        let value = self.to_f64() as f32;
        if value.is_subnormal() { 0f32.copysign(value) } else { value }
    }

    /// The magnitude, up to two roundings; `None` when the exponent is large.
    #[inline(always)]
    fn scaled(&self) -> Option<f64> {
        let power = *POWERS.get(self.exponent.unsigned_abs() as usize)?;
        let mantissa = self.mantissa as f64;
        Some(if self.exponent < 0 { mantissa / power } else { mantissa * power })
    }

    #[inline(always)]
    fn signed(&self, magnitude: f64) -> f64 {
        match (self.negative, self.form, self.mantissa.cmp(&0)) {
            (true, Form::Integer, Ordering::Equal) => 0.0,
            (true, ..) => -magnitude,
            _ => magnitude,
        }
    }

    #[cold]
    fn parsed(&self) -> f64 {
        let text = std::str::from_utf8(self.text).unwrap_or("");
        // The token's grammar is part of what the standard library reads.
        let value = text.parse::<f64>().unwrap_or(f64::NAN);
        if value.is_subnormal() { 0f64.copysign(value) } else { value }
    }
}

/// Whether a double that is off by a few units in its last place might lie on the other side of the
/// middle of two floats.
#[inline(always)]
fn near_float_tie(value: f64) -> bool {
    const BELOW_FLOAT: u64 = (1 << 29) - 1;
    const TIE: u64 = 1 << 28;
    (value.to_bits() & BELOW_FLOAT).abs_diff(TIE) <= 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number<'_> {
        let mut cursor = Cursor::new(text.as_bytes());
        let number = cursor.number().unwrap();
        assert_eq!(cursor.at(), text.len(), "{text}");
        number
    }

    fn fault(text: &str) -> (Fault, usize) {
        let error = Cursor::new(text.as_bytes()).number().unwrap_err();
        (error.fault, error.offset)
    }

    #[test]
    fn integers_are_told_from_doubles() {
        let integer = |text| number(text).integer();
        assert_eq!(integer("-0"), Some(0));
        assert_eq!(integer("18446744073709551615"), Some(u64::MAX.into()));
        assert_eq!(integer("18446744073709551616"), None);
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN.into()));
        assert_eq!(integer("-9223372036854775809"), None);
        assert_eq!(integer("1.0"), None);
        assert_eq!(integer("1e2"), None);
        assert!(number("-0").to_f32().is_sign_positive());
        assert!(number("-0.0").to_f64().is_sign_negative());
    }

    #[test]
    fn faults_are_the_originals() {
        assert_eq!(fault("+1"), (Fault::ValueInvalid, 0));
        assert_eq!(fault("-"), (Fault::ValueInvalid, 1));
        assert_eq!(fault("1."), (Fault::NumberWithoutFraction, 2));
        assert_eq!(fault("1e+"), (Fault::NumberWithoutExponent, 3));
        assert_eq!(fault("1e400"), (Fault::NumberTooBig, 0));
        assert_eq!(fault("0e309"), (Fault::NumberTooBig, 0));
        assert_eq!(fault("NaX"), (Fault::ValueInvalid, 2));
        assert_eq!(fault("Infinit"), (Fault::ValueInvalid, 7));
        assert_eq!(fault(&"9".repeat(400)), (Fault::NumberTooBig, 0));
        assert_eq!(number("9e308").to_f64(), f64::INFINITY);
        assert_eq!(number("0.1e309").to_f64(), 1e308);
        assert!(number("NaN").to_f32().is_nan());
        assert_eq!(number("-Inf").to_f64(), f64::NEG_INFINITY);
        assert_eq!(fault("1e99999999999"), (Fault::NumberTooBig, 0));
    }

    #[test]
    fn subnormal_numbers_are_zero() {
        assert_eq!(number("1e-320").to_f64().to_bits(), 0);
        assert_eq!(number("-1e-320").to_f64().to_bits(), (-0f64).to_bits());
        assert_eq!(number("1e-40").to_f32().to_bits(), 0);
        assert_eq!(number("1e39").to_f32(), f32::INFINITY);
        assert_eq!(number("1e-99999999999").to_f64(), 0.0);
    }

    fn flushed(value: f64) -> f64 {
        if value.is_subnormal() { 0f64.copysign(value) } else { value }
    }

    proptest! {
        #[test]
        fn doubles_round_trip(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:?}"), format!("{value:e}"), format!("{value:.16e}")] {
                prop_assert_eq!(number(&text).to_f64().to_bits(), flushed(value).to_bits());
            }
        }

        #[test]
        fn floats_round_trip(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let want = if value.is_subnormal() { 0f32.copysign(value) } else { value };
            for text in [format!("{value:?}"), format!("{value:.8e}"), format!("{:?}", f64::from(value))] {
                prop_assert_eq!(number(&text).to_f32().to_bits(), want.to_bits(), "{}", text);
            }
        }

        #[test]
        fn decimals_agree_with_the_library(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?") {
            let read = number(&text);
            let want = flushed(text.parse::<f64>().unwrap());
            if read.integer() != Some(0) {
                prop_assert_eq!(read.to_f64().to_bits(), want.to_bits());
                let single = want as f32;
                let single = if single.is_subnormal() { 0f32.copysign(single) } else { single };
                prop_assert_eq!(read.to_f32().to_bits(), single.to_bits());
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop::sample::select(b"0123456789+-.eENaInfity\0".to_vec()), 0..40)) {
            if let Ok(number) = Cursor::new(&bytes).number() {
                number.to_f64();
                number.to_f32();
                number.integer();
            }
        }
    }
}
