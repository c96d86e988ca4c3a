//! Convolutions of large images over few channels, computed where the image lies.
//!
//! rten lays an image out as a matrix for its product of matrices, element by element. Where the product has few
//! rows, which are the channels that come out, that takes as long as the product. Here the image gets its padding
//! and is read where it lies: with a stride of one, what a kernel's cell takes of an image for outputs beside
//! each other lies beside each other, too.
//!
//! May not know: graphs. Invariant: each element that is given is the sum of its own products and nothing else;
//! cells at the ends of rows, which would mix two rows, are computed and left out.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// Channels whose weights lie beside each other.
const PANEL: usize = 8;

/// Vectors of cells that are computed at a time.
const VECTORS: usize = 2;

/// Elements of the widest vector.
const LANES_MAX: usize = 16;

/// A convolution with a stride of one over images of `[channels, rows, columns]`.
#[derive(Debug)]
pub(super) struct DirectConvolution {
    /// For each [`PANEL`] of channels that come out, all weights of these channels, the cells of the kernel
    /// outermost.
    panels: Vec<f32>,
    bias: Vec<f32>,
    /// That go in, and that come out.
    channels: [usize; 2],
    /// Rows and columns.
    kernel: [usize; 2],
    /// Before the rows and the columns, and behind them.
    pads: [usize; 4],
    /// Whether what is below zero becomes zero.
    is_active: bool,
}

impl DirectConvolution {
    /// `weights` are of `[out, in, rows, columns]`; without a bias it is zero. `None` for weights that do not
    /// fit these sizes.
    pub(super) fn new(
        weights: &[f32],
        [out, channels, rows, columns]: [usize; 4],
        bias: Option<&[f32]>,
        pads: [usize; 4],
        is_active: bool,
    ) -> Option<DirectConvolution> {
        let cells = channels * rows * columns;
        let bias = bias.map_or_else(|| vec![0.0; out], <[f32]>::to_vec);
        if weights.len() != out * cells || bias.len() != out || weights.is_empty() {
            return None;
        }
        let mut panels = vec![0.0; out.div_ceil(PANEL) * PANEL * cells];
        for (channel, own) in weights.chunks_exact(cells).enumerate() {
            let panel = &mut panels[channel / PANEL * PANEL * cells..];
            for (weight, place) in
                own.iter().zip(panel[channel % PANEL..].iter_mut().step_by(PANEL))
            {
                *place = *weight;
            }
        }
        let (channels, kernel) = ([channels, out], [rows, columns]);
        Some(DirectConvolution { panels, bias, channels, kernel, pads, is_active })
    }

    /// The channels that come out.
    pub(super) fn out_channels(&self) -> usize {
        self.channels[1]
    }

    /// The rows and columns that come of an image with so many; `None` where the kernel is larger.
    pub(super) fn size_of(&self, [rows, columns]: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.pads;
        let [kernel_rows, kernel_columns] = self.kernel;
        let rows = (rows + top + bottom + 1).checked_sub(kernel_rows)?;
        let columns = (columns + left + right + 1).checked_sub(kernel_columns)?;
        (rows > 0 && columns > 0).then_some([rows, columns])
    }

    /// Computes one image; `None` where it does not fit.
    pub(super) fn run(&self, image: &[f32], size: [usize; 2], out: &mut [f32]) -> Option<()> {
        self.run_by(image, size, out, |run| run.dispatch())
    }

    fn run_by(
        &self,
        image: &[f32],
        size: [usize; 2],
        out: &mut [f32],
        compute: impl FnOnce(Run<'_>),
    ) -> Option<()> {
        let [rows, columns] = self.size_of(size)?;
        let [channels, out_channels] = self.channels;
        let (read, given) = (channels * size[0] * size[1], out_channels * rows * columns);
        if image.len() != read || out.len() != given {
            return None;
        }
        let width = size[1] + self.pads[1] + self.pads[3];
        let plane = (size[0] + self.pads[0] + self.pads[2]) * width;
        let padded = self.padded(image, size, width, plane);
        let mut offsets = Vec::with_capacity(channels * self.kernel[0] * self.kernel[1]);
        for channel in 0..channels {
            for row in 0..self.kernel[0] {
                let start = channel * plane + row * width;
                offsets.extend((0..self.kernel[1]).map(|column| start + column));
            }
        }
        let (padded, offsets, size) = (&padded, &offsets, [rows, columns]);
        compute(Run { own: self, padded, offsets, width, size, out });
        Some(())
    }

    /// The image with its padding, and with as many elements behind it as a vector may read.
    fn padded(
        &self,
        image: &[f32],
        [rows, columns]: [usize; 2],
        width: usize,
        plane: usize,
    ) -> Vec<f32> {
        let mut padded = vec![0.0; self.channels[0] * plane + VECTORS * LANES_MAX];
        for (own, place) in image.chunks_exact(rows * columns).zip(padded.chunks_exact_mut(plane)) {
            let inner = &mut place[self.pads[0] * width..];
            for (row, place) in own.chunks_exact(columns).zip(inner.chunks_exact_mut(width)) {
                place[self.pads[1]..][..columns].copy_from_slice(row);
            }
        }
        padded
    }
}

/// The convolution of one image.
struct Run<'r> {
    own: &'r DirectConvolution,
    padded: &'r [f32],
    /// Where each cell of the kernel lies in the image, from the place of the output on.
    offsets: &'r [usize],
    /// Of a padded row.
    width: usize,
    /// Rows and columns that come out.
    size: [usize; 2],
    out: &'r mut [f32],
}

impl SimdOp for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        // As many sums as there are registers for.
        if isa.f32().len() >= LANES_MAX {
            self.blocks::<I, 8>(isa)
        } else {
            self.blocks::<I, 4>(isa)
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    fn blocks<I: Isa, const SUMS: usize>(&mut self, isa: I) {
        let ops = isa.f32();
        let cells = VECTORS * ops.len();
        let [rows, columns] = self.size;
        let end = (rows - 1) * self.width + columns;
        let out_channels = self.own.channels[1];
        let mut parts = Vec::new();
        for start in (0..end).step_by(cells) {
            self.parts(start, cells, &mut parts);
            for first in (0..out_channels).step_by(SUMS) {
                let sums = self.sums::<I, SUMS>(isa, start, first);
                for (channel, sums) in (first..out_channels).zip(&sums) {
                    let plane = &mut self.out[channel * rows * columns..][..rows * columns];
                    for &(from, to, count) in &parts {
                        plane[to..][..count].copy_from_slice(&sums[from..][..count]);
                    }
                }
            }
        }
    }

    /// What of a block are cells that are given: where in the block, where in the plane, how many.
    #[inline(always)]
    fn parts(&self, start: usize, cells: usize, parts: &mut Vec<(usize, usize, usize)>) {
        parts.clear();
        let [rows, columns] = self.size;
        let (first, last) = (start / self.width, (start + cells - 1) / self.width);
        for row in first..=last.min(rows - 1) {
            let line = row * self.width;
            let (from, to) = (start.max(line), (start + cells).min(line + columns));
            if from < to {
                parts.push((from - start, row * columns + from - line, to - from));
            }
        }
    }

    /// The sums of a block for channels from `first` on.
    #[inline(always)]
    fn sums<I: Isa, const SUMS: usize>(
        &self,
        isa: I,
        start: usize,
        first: usize,
    ) -> [[f32; VECTORS * LANES_MAX]; SUMS] {
        let ops = isa.f32();
        let image = &self.padded[start..];
        let weights = self.offsets.len() * PANEL;
        let panel = &self.own.panels[first / PANEL * weights..][..weights];
        let mut sums = [[ops.splat(0.0); VECTORS]; SUMS];
        for (offset, own) in self.offsets.iter().zip(panel.chunks_exact(PANEL)) {
            let read: [I::F32; VECTORS] = ops.load_many(&image[*offset..]);
            let own = &own[first % PANEL..][..SUMS];
            for (sum, weight) in sums.iter_mut().zip(own) {
                let weight = ops.splat(*weight);
                for (sum, read) in sum.iter_mut().zip(read) {
                    *sum = ops.mul_add(read, weight, *sum);
                }
            }
        }
        let mut given = [[0.0; VECTORS * LANES_MAX]; SUMS];
        for (at, (sums, given)) in sums.into_iter().zip(&mut given).enumerate() {
            let bias = ops.splat(self.own.bias.get(first + at).copied().unwrap_or_default());
            for (sum, place) in sums.into_iter().zip(given.chunks_exact_mut(ops.len())) {
                let sum = ops.add(sum, bias);
                let sum = if self.own.is_active { ops.max(sum, ops.zero()) } else { sum };
                ops.store(sum, place);
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cell by cell.
    fn plainly(
        image: &[f32],
        [rows, columns]: [usize; 2],
        weights: &[f32],
        [out, channels, kernel_rows, kernel_columns]: [usize; 4],
        bias: &[f32],
        [top, left, bottom, right]: [usize; 4],
    ) -> Vec<f32> {
        let (out_rows, out_columns) =
            (rows + top + bottom + 1 - kernel_rows, columns + left + right + 1 - kernel_columns);
        let mut sums = Vec::new();
        for (to, bias) in bias.iter().enumerate().take(out) {
            for at in 0..out_rows * out_columns {
                let mut sum = f64::from(*bias);
                for from in 0..channels {
                    for cell in 0..kernel_rows * kernel_columns {
                        let row = at / out_columns + cell / kernel_columns;
                        let column = at % out_columns + cell % kernel_columns;
                        if (top..top + rows).contains(&row)
                            && (left..left + columns).contains(&column)
                        {
                            let read = (from * rows + row - top) * columns + column - left;
                            let weight =
                                (to * channels + from) * kernel_rows * kernel_columns + cell;
                            sum += f64::from(image[read]) * f64::from(weights[weight]);
                        }
                    }
                }
                sums.push(sum as f32);
            }
        }
        sums
    }

    /// As processors with narrower vectors compute it.
    struct Narrow<'r>(Run<'r>);

    impl SimdOp for Narrow<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(mut self, isa: I) {
            self.0.blocks::<I, 4>(isa);
        }
    }

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn it_gives_the_sums_of_all_cells(
            size in [1usize..9, 1usize..40],
            kernel in [1usize..4, 1usize..8],
            channels in [1usize..4, 1usize..20],
            pads in [0usize..3, 0usize..3, 0usize..3, 0usize..3],
            is_active in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let dims = [channels[1], channels[0], kernel[0], kernel[1]];
            let weights = numbers(dims.iter().product(), seed);
            let bias = numbers(channels[1], seed ^ 1);
            let image = numbers(channels[0] * size[0] * size[1], seed ^ 2);
            let own = DirectConvolution::new(&weights, dims, Some(&bias), pads, is_active).unwrap();
            let Some(given_size) = own.size_of(size) else { return Ok(()) };
            let mut given = vec![f32::NAN; channels[1] * given_size[0] * given_size[1]];
            own.run(&image, size, &mut given).unwrap();
            let mut narrow = vec![f32::NAN; given.len()];
            own.run_by(&image, size, &mut narrow, |run| Narrow(run).dispatch()).unwrap();
            prop_assert_eq!(&narrow, &given);
            let want = plainly(&image, size, &weights, dims, &bias, pads);
            for (given, want) in given.iter().zip(&want) {
                let want = if is_active { want.max(0.0) } else { *want };
                prop_assert!((given - want).abs() < 1e-4, "{given} {want}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |weights: usize, bias: &[f32]| {
            let weights = vec![1.0; weights];
            DirectConvolution::new(&weights, [2, 1, 3, 3], Some(bias), [0; 4], false)
        };
        assert!(new(17, &[0.0; 2]).is_none());
        assert!(new(18, &[0.0; 3]).is_none());
        let own = new(18, &[0.0; 2]).unwrap();
        assert_eq!(own.size_of([2, 9]), None);
        assert_eq!(own.size_of([3, 9]), Some([1, 7]));
        assert_eq!(own.run(&[0.0; 26], [3, 9], &mut [0.0; 14]), None);
        assert_eq!(own.run(&[0.0; 27], [3, 9], &mut [0.0; 13]), None);
        assert_eq!(own.run(&[0.0; 27], [3, 9], &mut [0.0; 14]), Some(()));
    }
}
