//! Boxes inside tensors: how partitioned variables are named, cut and put together.
//!
//! Knows nothing of files. Invariant: copies stay inside both boxes.

use vesta_model::Shape;
use vesta_protos::tensorflow::{
    TensorSliceProto, tensor_slice_proto::extent::HasLengthHack as Length,
};

/// A part of a tensor: per dimension where it starts and how far it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    starts: Vec<usize>,
    lens: Vec<usize>,
}

impl Region {
    /// All of a tensor of `shape`.
    pub(crate) fn whole(shape: &Shape) -> Region {
        Region { starts: vec![0; shape.rank()], lens: shape.dims().to_vec() }
    }

    /// A stored slice; `None` when it does not lie in `shape`.
    pub(super) fn from_proto(slice: &TensorSliceProto, shape: &Shape) -> Option<Region> {
        if slice.extent.len() != shape.rank() {
            return None;
        }
        let extents = slice.extent.iter().map(|extent| match extent.has_length_hack {
            None => Some(None),
            Some(Length::Length(len)) => {
                Some(Some((usize::try_from(extent.start).ok()?, usize::try_from(len).ok()?)))
            }
        });
        Region::from_extents(extents.collect::<Option<Vec<_>>>()?, shape)
    }

    /// Reads how a restore operator names a part: the sizes of the whole tensor, then per dimension
    /// `-` for all of it or `start,length`, such as `10 4 0,5:-`. `None` when malformed.
    pub(crate) fn parse(text: &str) -> Option<(Shape, Region)> {
        let (dims, extents) = text.rsplit_once(' ')?;
        let dims: Vec<usize> =
            dims.split(' ').map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
        let shape = Shape::new(dims).ok()?;
        let extents = extents.split(':').map(|extent| {
            if extent == "-" {
                return Some(None);
            }
            let (start, len) = extent.split_once(',')?;
            Some(Some((start.parse().ok()?, len.parse().ok()?)))
        });
        let region = Region::from_extents(extents.collect::<Option<Vec<_>>>()?, &shape)?;
        Some((shape, region))
    }

    fn from_extents(extents: Vec<Option<(usize, usize)>>, shape: &Shape) -> Option<Region> {
        if extents.len() != shape.rank() {
            return None;
        }
        let mut region = Region::whole(shape);
        for (dim, extent) in extents.into_iter().enumerate() {
            let Some((start, len)) = extent else { continue };
            if start.checked_add(len)? > shape.dims()[dim] {
                return None;
            }
            region.starts[dim] = start;
            region.lens[dim] = len;
        }
        Some(region)
    }

    /// The shape of the part.
    pub(crate) fn shape(&self) -> Shape {
        // Never larger than the shape that it was cut from, so it is valid as well.
        Shape::new(self.lens.clone()).unwrap_or_default()
    }

    /// The part that both have; `None` when there is none.
    pub(super) fn intersection(&self, other: &Region) -> Option<Region> {
        let mut common = self.clone();
        for dim in 0..self.lens.len() {
            let start = self.starts[dim].max(other.starts[dim]);
            let end = (self.starts[dim] + self.lens[dim]).min(other.starts[dim] + other.lens[dim]);
            common.starts[dim] = start;
            common.lens[dim] = end.checked_sub(start).filter(|&len| len > 0)?;
        }
        Some(common)
    }

    /// The key under which a bundle stores the part `self` of the tensor `name`.
    pub(super) fn stored_key(slice: &TensorSliceProto, name: &str) -> Vec<u8> {
        let mut key = Vec::new();
        ordered::put_number(&mut key, 0);
        ordered::put_text(&mut key, name.as_bytes());
        ordered::put_number(&mut key, slice.extent.len() as u64);
        for extent in &slice.extent {
            let len = match extent.has_length_hack {
                // All of a dimension is written as the length -1.
                None => -1,
                Some(Length::Length(len)) => len,
            };
            ordered::put_signed(&mut key, extent.start);
            ordered::put_signed(&mut key, len);
        }
        key
    }
}

/// Copies the elements of `part` (inside both) from the tensor of region `from` to that of `to`.
pub(super) fn copy(
    part: &Region,
    (from_bytes, from): (&[u8], &Region),
    (to_bytes, to): (&mut [u8], &Region),
    width: usize,
) {
    let rank = part.lens.len();
    if rank == 0 {
        to_bytes.copy_from_slice(from_bytes);
        return;
    }
    let row = part.lens[rank - 1] * width;
    let mut index = vec![0usize; rank];
    loop {
        let source = from.offset_of(part, &index) * width;
        let target = to.offset_of(part, &index) * width;
        to_bytes[target..target + row].copy_from_slice(&from_bytes[source..source + row]);
        // The next row: count up in all dimensions but the last.
        let Some(dim) = (0..rank - 1).rev().find(|&dim| index[dim] + 1 < part.lens[dim]) else {
            return;
        };
        index[dim] += 1;
        index[dim + 1..].fill(0);
    }
}

impl Region {
    /// Position, in elements inside this region, of the element `index` of `part`.
    fn offset_of(&self, part: &Region, index: &[usize]) -> usize {
        let mut offset = 0;
        for (dim, &at) in index.iter().enumerate() {
            offset = offset * self.lens[dim] + (part.starts[dim] + at - self.starts[dim]);
        }
        offset
    }
}

/// Numbers and texts written so that their bytes sort as they do.
mod ordered {
    /// A number: how many bytes, then those, the most significant first.
    pub(super) fn put_number(out: &mut Vec<u8>, value: u64) {
        let bytes = value.to_be_bytes();
        let skipped = (value.leading_zeros() / 8) as usize;
        out.push((bytes.len() - skipped) as u8);
        out.extend_from_slice(&bytes[skipped..]);
    }

    /// A text: 0 and 255 are escaped, the end is marked.
    pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
        for &byte in text {
            out.push(byte);
            match byte {
                0x00 => out.push(0xff),
                0xff => out.push(0x00),
                _ => {}
            }
        }
        out.extend_from_slice(&[0x00, 0x01]);
    }

    /// A signed number: leading bits tell the length in bytes, each of which adds seven bits.
    pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
        let magnitude = (if value < 0 { !value } else { value }) as u64;
        let bits = (u64::BITS - magnitude.leading_zeros()) as usize;
        let len = bits / 7 + 1;
        let sign = if value < 0 { 0xff } else { 0x00 };
        let mut wide = [sign; 10];
        wide[2..].copy_from_slice(&value.to_be_bytes());
        let header = u16::MAX << (16 - len);
        let bytes = &mut wide[10 - len..];
        bytes[0] ^= (header >> 8) as u8;
        if let Some(second) = bytes.get_mut(1) {
            *second ^= header as u8;
        }
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_parsed() {
        let (shape, region) = Region::parse("10 4 2,5:-").unwrap();
        assert_eq!(shape.dims(), [10, 4]);
        assert_eq!(region, Region { starts: vec![2, 0], lens: vec![5, 4] });
        for bad in ["", "10", "10 4", "10 4 0,5", "10 4 6,5:-", "10 4 0,5:x", "10 -4 0,5:-"] {
            assert_eq!(Region::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ordered_numbers_have_their_known_bytes() {
        let signed = |value| {
            let mut out = Vec::new();
            ordered::put_signed(&mut out, value);
            out
        };
        assert_eq!(signed(0), [0x80]);
        assert_eq!(signed(-1), [0x7f]);
        assert_eq!(signed(63), [0xbf]);
        assert_eq!(signed(64), [0xc0, 0x40]);
        assert_eq!(signed(-65), [0x3f, 0xbf]);
        assert_eq!(signed(8192), [0xe0, 0x20, 0x00]);
        let mut number = Vec::new();
        ordered::put_number(&mut number, 0);
        ordered::put_number(&mut number, 256);
        assert_eq!(number, [0, 2, 1, 0]);
        let mut text = Vec::new();
        ordered::put_text(&mut text, &[0, b'a', 255]);
        assert_eq!(text, [0, 255, b'a', 255, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn signed_numbers_sort_as_their_bytes(a in any::<i64>(), b in any::<i64>()) {
            let bytes = |value| {
                let mut out = Vec::new();
                ordered::put_signed(&mut out, value);
                out
            };
            prop_assert_eq!(a.cmp(&b), bytes(a).cmp(&bytes(b)));
        }

        #[test]
        fn cutting_rows_and_joining_them_gives_the_whole(rows in 1usize..7, columns in 1usize..5, cut in 0usize..7) {
            let cut = cut.min(rows);
            let shape = Shape::new(vec![rows, columns]).unwrap();
            let whole = Region::whole(&shape);
            let bytes: Vec<u8> = (0..rows * columns).map(|i| i as u8).collect();
            let mut joined = vec![0xee; bytes.len()];
            for (start, len) in [(0, cut), (cut, rows - cut)] {
                let Some(part) = Region::parse(&format!("{rows} {columns} {start},{len}:-"))
                    .and_then(|(_, region)| region.intersection(&whole)) else { continue };
                let mut cut_out = vec![0; len * columns];
                copy(&part, (&bytes, &whole), (&mut cut_out, &part), 1);
                copy(&part, (&cut_out, &part), (&mut joined, &whole), 1);
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}
