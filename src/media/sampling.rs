//! Sampling settings: which frames of a clip are used.

use serde::{Deserialize, Serialize};

/// Selects frames of a clip; the table `[sampling]` of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Sampling {
    /// `frames` frames, each the center of one of `frames` equal segments.
    Even {
        /// Number of frames. A shorter clip yields each of its frames once.
        frames: usize,
    },
    /// Up to `count` evenly spaced windows of `length` frames at `rate` frames per second.
    Windows {
        /// Frames per window.
        length: usize,
        /// Frame rate of the resampled sequence, in frames per second.
        rate: f64,
        /// Maximum number of windows.
        count: usize,
    },
    /// One window of `length` evenly spaced frames of the whole clip: a window of a 3-D network.
    Spread {
        /// Frames per window. A shorter clip repeats frames.
        length: usize,
    },
    /// Every frame, or every n-th frame: a sequence.
    All {
        /// Distance between selected frames, in frames.
        #[serde(default = "one")]
        every: usize,
        /// Maximum number of frames; a longer selection is reduced to this many evenly spaced frames.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<usize>,
    },
    /// `frames` frames of each shot, each the center of one of `frames` equal segments of the shot. Shots come from the
    /// list that `kinoprobe-shots` writes.
    Shots {
        /// Frames per shot. A shorter shot yields each of its frames once.
        frames: usize,
    },
}

/// Which frames of a video are deinterlaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Deinterlace {
    /// None.
    #[default]
    Off,
    /// Frames that are marked as interlaced, by libavfilter's `bwdif`.
    Auto,
}

impl Deinterlace {
    /// Returns `true` for the default, which stores do not record.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// Maximum number of frames per window, far above the input of any network.
pub const MAX_LENGTH: usize = 4096;

fn one() -> usize {
    1
}

impl Sampling {
    /// Returns the maximum number of rows (frames or windows) of a clip, if it does not depend on the clip's length or shots.
    pub fn max_rows(&self) -> Option<usize> {
        match *self {
            Sampling::Even { frames } => Some(frames),
            Sampling::Windows { count, .. } => Some(count),
            Sampling::Spread { .. } => Some(1),
            Sampling::All { most, .. } => most,
            Sampling::Shots { .. } => None,
        }
    }

    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        let positive = |key: &str, value: usize| match value {
            0 => Err(format!("sampling.{key} must be at least 1")),
            _ => Ok(()),
        };
        let window_length = |length| match length {
            length if length > MAX_LENGTH => Err(format!("sampling.length must be at most {MAX_LENGTH}")),
            length => positive("length", length),
        };
        match *self {
            Self::Even { frames } | Self::Shots { frames } => positive("frames", frames),
            Self::All { every, most } => {
                positive("every", every)?;
                positive("most", most.unwrap_or(1))
            }
            Self::Spread { length } => window_length(length),
            Self::Windows { length, rate, count } => {
                window_length(length)?;
                positive("count", count)?;
                if !(rate.is_finite() && rate > 0.0) {
                    return Err("sampling.rate must be a positive number of frames per second".into());
                }
                Ok(())
            }
        }
    }
}
