//! Reading of serialised `tf.Example` messages, straight from the wire format.
//!
//! May not know: graphs, kernels. Invariant: reading follows protobuf's rules for merged messages:
//! bytes of several Examples back to back are one Example, of equal keys the last counts.

/// The values of one feature, still in wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values<'a> {
    /// The feature says nothing of its kind.
    Unset,
    Bytes(&'a [u8]),
    Floats(&'a [u8]),
    Integers(&'a [u8]),
}

/// The bytes are no Example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Block(&'a [u8]),
}

/// Walks the fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next field and its number; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(Malformed);
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Field::Block(self.take(length)?)
            }
            5 => {
                let mut word = [0; 4];
                word.copy_from_slice(self.take(4)?);
                Field::Fixed32(word)
            }
            // Groups are long gone from every writer of Examples.
            _ => return Err(Malformed),
        };
        Ok(Some((number, field)))
    }
}

/// All features of an Example, in the order of the wire; keys may come more than once.
pub(crate) fn features(serialized: &[u8]) -> Result<Vec<(&[u8], Values<'_>)>, Malformed> {
    let mut found = Vec::new();
    let mut example = Fields(serialized);
    while let Some((number, field)) = example.next()? {
        let (1, Field::Block(features)) = (number, field) else { continue };
        let mut features = Fields(features);
        while let Some((number, field)) = features.next()? {
            let (1, Field::Block(entry)) = (number, field) else { continue };
            found.push(map_entry(entry)?);
        }
    }
    Ok(found)
}

fn map_entry(entry: &[u8]) -> Result<(&[u8], Values<'_>), Malformed> {
    let (mut key, mut values) = (&[][..], Values::Unset);
    let mut fields = Fields(entry);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Block(text)) => key = text,
            (2, Field::Block(feature)) => values = kind(feature)?,
            _ => {}
        }
    }
    Ok((key, values))
}

fn kind(feature: &[u8]) -> Result<Values<'_>, Malformed> {
    let mut values = Values::Unset;
    let mut fields = Fields(feature);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Block(list)) => values = Values::Bytes(list),
            (2, Field::Block(list)) => values = Values::Floats(list),
            (3, Field::Block(list)) => values = Values::Integers(list),
            _ => {}
        }
    }
    Ok(values)
}

/// The strings of a bytes list.
pub(crate) fn byte_values(list: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut values = Vec::new();
    let mut fields = Fields(list);
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Block(value)) = (number, field) {
            values.push(value);
        }
    }
    Ok(values)
}

/// The values of a float list, packed or not.
pub(crate) fn float_values(list: &[u8]) -> Result<Vec<f32>, Malformed> {
    let mut values = Vec::new();
    let mut fields = Fields(list);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Block(packed)) => {
                let (words, rest) = packed.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(Malformed);
                }
                values.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
            }
            (1, Field::Fixed32(word)) => values.push(f32::from_le_bytes(word)),
            _ => {}
        }
    }
    Ok(values)
}

/// The values of an int64 list, packed or not.
pub(crate) fn integer_values(list: &[u8]) -> Result<Vec<i64>, Malformed> {
    let mut values = Vec::new();
    let mut fields = Fields(list);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Block(packed)) => {
                let mut packed = Fields(packed);
                while !packed.0.is_empty() {
                    values.push(packed.varint()? as i64);
                }
            }
            (1, Field::Varint(value)) => values.push(value as i64),
            _ => {}
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use vesta_protos::tensorflow::{
        BytesList, Example, Feature, Features, FloatList, Int64List, feature::Kind,
    };

    fn example(entries: &[(&str, Kind)]) -> Vec<u8> {
        let feature = entries
            .iter()
            .map(|(key, kind)| ((*key).to_owned(), Feature { kind: Some(kind.clone()) }))
            .collect();
        Example { features: Some(Features { feature }) }.encode_to_vec()
    }

    fn floats(values: &[f32]) -> Kind {
        Kind::FloatList(FloatList { value: values.to_vec() })
    }

    #[test]
    fn reads_what_protobuf_writes() {
        let bytes = example(&[
            ("f", floats(&[1.5, -2.0])),
            ("i", Kind::Int64List(Int64List { value: vec![-1, 1 << 40] })),
            ("s", Kind::BytesList(BytesList { value: vec![b"ab".to_vec().into(), vec![].into()] })),
        ]);
        let found = features(&bytes).unwrap();
        let [(b"f", Values::Floats(f)), (b"i", Values::Integers(i)), (b"s", Values::Bytes(s))] =
            found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!(float_values(f), Ok(vec![1.5, -2.0]));
        assert_eq!(integer_values(i), Ok(vec![-1, 1 << 40]));
        assert_eq!(byte_values(s), Ok(vec![&b"ab"[..], b""]));
    }

    #[test]
    fn examples_back_to_back_are_one() {
        let both = [example(&[("x", floats(&[1.0]))]), example(&[("x", floats(&[2.0]))])].concat();
        let found = features(&both).unwrap();
        assert_eq!(found.len(), 2);
        let Values::Floats(last) = found[1].1 else { panic!() };
        assert_eq!(float_values(last), Ok(vec![2.0]));
    }

    #[test]
    fn unpacked_lists_are_read() {
        assert_eq!(integer_values(&[8, 5, 8, 6]), Ok(vec![5, 6]));
        assert_eq!(float_values(&[13, 0, 0, 128, 63]), Ok(vec![1.0]));
    }

    #[test]
    fn what_is_no_example_is_malformed() {
        assert_eq!(features(b"x"), Err(Malformed));
        assert_eq!(features(&[10, 200]), Err(Malformed));
        assert_eq!(features(b""), Ok(vec![]));
        assert_eq!(float_values(&[10, 3, 0, 0, 0]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(found) = features(&bytes) {
                for (_, values) in found {
                    match values {
                        Values::Unset => {}
                        Values::Bytes(list) => drop(byte_values(list)),
                        Values::Floats(list) => drop(float_values(list)),
                        Values::Integers(list) => drop(integer_values(list)),
                    }
                }
            }
        }
    }
}
