//! Shapes of activations and geometry of convolutions and pooling.

use std::ops::Range;

/// The channel stride of every activation is a multiple of this, so that a position consists of full vectors on every
/// instruction set. Channels beyond the real ones are padding and hold zeros.
pub(super) const CHANNEL_ALIGNMENT: usize = 16;

/// Returns `channels` rounded up to a multiple of [`CHANNEL_ALIGNMENT`].
pub(super) fn padded_channels(channels: usize) -> usize {
    channels.next_multiple_of(CHANNEL_ALIGNMENT)
}

/// Sizes along depth, height and width.
pub(super) type Dhw = [usize; 3];

/// Shape of an activation in memory, (batch, depth, height, width, channels). Images have depth 1, vectors one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TensorShape {
    /// Number of items.
    pub batch: usize,
    /// Frames per item.
    pub depth: usize,
    /// Rows per frame.
    pub height: usize,
    /// Columns per frame.
    pub width: usize,
    /// Channels per position, without padding.
    pub channels: usize,
    /// Floats per position in memory: the channels and their zero padding.
    pub channel_stride: usize,
}

impl TensorShape {
    /// Returns the number of frames in the batch.
    pub fn frames(self) -> usize {
        self.batch * self.depth
    }

    /// Returns the number of positions in the batch.
    pub fn positions(self) -> usize {
        self.frames() * self.height * self.width
    }

    /// Returns the number of floats in memory.
    pub fn len(self) -> usize {
        self.positions() * self.channel_stride
    }

    /// Returns the number of floats in memory, or `None` if it overflows.
    pub fn checked_len(self) -> Option<usize> {
        [self.depth, self.height, self.width, self.channel_stride]
            .into_iter()
            .try_fold(self.batch, |product, axis| product.checked_mul(axis))
    }

    /// Returns the shape with the same positions and `channels` channels, padded.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, channel_stride: padded_channels(channels), ..self }
    }
}

/// Kernel size, stride and padding of a convolution or pooling layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConvGeometry {
    /// Kernel size.
    pub kernel: Dhw,
    /// Stride, at least 1.
    pub stride: Dhw,
    /// Padding before the first element of each axis.
    pub pad_before: Dhw,
    /// Padding after the last element of each axis.
    pub pad_after: Dhw,
}

impl ConvGeometry {
    /// Returns the number of kernel taps.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Returns the kernel size, and the stride unless it is 1, such as `7x7 stride 2`. Depth is left out if both are 1 along it.
    pub fn describe(&self) -> String {
        let first = usize::from(self.kernel[0] == 1 && self.stride[0] == 1);
        let join = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (kernel, stride) = (join(&self.kernel[first..]), &self.stride[first..]);
        match stride.iter().all(|&step| step == stride[0]) {
            true if stride[0] == 1 => kernel,
            true => format!("{kernel} stride {}", stride[0]),
            false => format!("{kernel} stride {}", join(stride)),
        }
    }

    /// Returns the output shape, or `None` if the padded input is smaller than the kernel.
    pub fn output_shape(&self, input: TensorShape, channels: usize) -> Option<TensorShape> {
        let axis = |i: usize, length: usize| -> Option<usize> {
            let padded = length.checked_add(self.pad_before[i])?.checked_add(self.pad_after[i])?;
            Some(padded.checked_sub(self.kernel[i])? / self.stride[i] + 1)
        };
        let (depth, height, width) = (axis(0, input.depth)?, axis(1, input.height)?, axis(2, input.width)?);
        Some(TensorShape { depth, height, width, ..input }.with_channels(channels))
    }

    /// Returns the rows of an image of `height` rows that the `output` rows depend on.
    pub fn input_rows(&self, output: &Range<usize>, height: usize) -> Range<usize> {
        let first = (output.start * self.stride[1]).saturating_sub(self.pad_before[1]);
        let last = ((output.end - 1) * self.stride[1] + self.kernel[1]).saturating_sub(self.pad_before[1]);
        first.min(height)..last.min(height)
    }

    /// Returns the elements of an axis of `length` elements that element `output` of the result depends on.
    pub fn window(&self, axis: usize, output: usize, length: usize) -> Range<usize> {
        let start = output * self.stride[axis];
        let bound = |end: usize| end.saturating_sub(self.pad_before[axis]).min(length);
        bound(start)..bound(start + self.kernel[axis])
    }

    /// Returns `true` if the kernel has this size, this stride along every axis and this padding on both sides.
    pub fn matches(&self, kernel: Dhw, stride: usize, padding: Dhw) -> bool {
        self.kernel == kernel && self.stride == [stride; 3] && self.pad_before == padding && self.pad_after == padding
    }
}
