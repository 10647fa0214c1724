//! Every kernel compiled for several instruction sets, and the choice between them.
//!
//! The loops themselves are ordinary safe functions, always inlined. A [`Kernels`] is a table of pointers to copies of
//! them for one instruction set; `LEVELS` lists the tables, the widest first, and the first that this machine can run
//! is taken, once. A new kernel is one line in the list at the end of this file.
//!
//! Unsafe is confined to one fact the compiler cannot know: that a function compiled for AVX2 runs on this machine.
//! Tables are made only here, their fields are private, and only those that the machine can run are handed out.

#![allow(unsafe_code, reason = "a function compiled for an instruction set may only be called where it exists")]

use core::fmt;
use std::sync::LazyLock;

use crate::{agc, dtmf, g711, limit, mix, resample, stretch, tone};

/// The instruction set whose kernels are in use, for the log.
pub fn instruction_set() -> &'static str {
    kernels().name
}

/// The widest kernels this machine can run.
pub(crate) fn kernels() -> &'static Kernels {
    static WIDEST: LazyLock<&Kernels> = LazyLock::new(|| supported().next().expect("the baseline runs everywhere"));
    *WIDEST
}

/// All kernels this machine can run, the widest first.
pub(crate) fn supported() -> impl Iterator<Item = &'static Kernels> {
    LEVELS.iter().filter(|(is_supported, _)| is_supported()).map(|(_, kernels)| kernels)
}

/// Shows the instruction set.
impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Each table with the question whether this machine can run it. The baseline is what the compiler may assume of every
/// machine of the architecture, on x86-64 SSE2.
#[cfg(target_arch = "x86_64")]
static LEVELS: [(fn() -> bool, Kernels); 3] = [
    (
        || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512vl")
        },
        avx512::KERNELS,
    ),
    (|| is_x86_feature_detected!("avx2"), avx2::KERNELS),
    (|| true, baseline::KERNELS),
];

#[cfg(not(target_arch = "x86_64"))]
static LEVELS: [(fn() -> bool, Kernels); 1] = [(|| true, baseline::KERNELS)];

/// Makes the table type and one table for each instruction set from the list of kernels.
macro_rules! kernels {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $body:path;)*) => {
        /// One copy of every kernel, compiled for one instruction set that this machine has.
        pub(crate) struct Kernels {
            name: &'static str,
            $($name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        impl Kernels {
            $(
                #[inline]
                pub(crate) fn $name(&self, $($arg: $type),*) $(-> $result)? {
                    // SAFETY: the function asks for nothing but its instruction set. Every table outside of this module
                    // came from `supported`, which has found that set on this machine, where it stays.
                    unsafe { (self.$name)($($arg),*) }
                }
            )*
        }

        mod baseline {
            use super::*;

            pub(super) const KERNELS: Kernels = Kernels { name: "baseline", $($name: $body,)* };
        }

        compiled_for! { avx2, "avx2", $($name($($arg: $type),*) $(-> $result)? = $body;)* }
        compiled_for! {
            avx512, "avx512f,avx512bw,avx512cd,avx512vl", $($name($($arg: $type),*) $(-> $result)? = $body;)*
        }
    };
}

/// Makes the module `$level` with a copy of every kernel that may use `$features`.
macro_rules! compiled_for {
    ($level:ident, $features:literal, $($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $body:path;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod $level {
            use super::*;

            pub(super) const KERNELS: Kernels = Kernels { name: stringify!($level), $($name,)* };

            $(
                #[target_feature(enable = $features)]
                fn $name($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }
            )*
        }
    };
}

kernels! {
    fn decode_ulaw(payload: &[u8], out: &mut [i16]) = g711::loops::decode_ulaw;
    fn encode_ulaw(samples: &[i16], out: &mut [u8]) = g711::loops::encode_ulaw;
    fn decode_alaw(payload: &[u8], out: &mut [i16]) = g711::loops::decode_alaw;
    fn encode_alaw(samples: &[i16], out: &mut [u8]) = g711::loops::encode_alaw;
    fn accumulate(sum: &mut [i32], samples: &[i16]) = mix::loops::accumulate;
    fn subtract_narrow(sum: &[i32], own: &[i16], out: &mut [i16]) = mix::loops::subtract_narrow;
    fn narrow(sum: &[i32], out: &mut [i16]) = mix::loops::narrow;
    fn apply_gain(samples: &mut [i16], gain_q12: i32) = mix::loops::apply_gain;
    fn peak(samples: &[i16]) -> u16 = mix::loops::peak;
    fn energy(samples: &[i16]) -> u64 = mix::loops::energy;
    fn narrow_if_fits(sum: &[i32], out: &mut [i16]) -> bool = limit::loops::narrow_if_fits;
    fn subtract_narrow_if_fits(sum: &[i32], own: &[i16], out: &mut [i16]) -> bool = limit::loops::subtract_narrow_if_fits;
    fn peak_sum(sum: &[i32]) -> u32 = limit::loops::peak_sum;
    fn scale(sum: &[i32], gain: f32, step: f32, out: &mut [i16]) = limit::loops::scale;
    fn ramp(samples: &mut [i16], gain: f32, step: f32) = agc::loops::ramp;
    fn sines(sines: &[tone::Sine; 2], gain: f32, out: &mut [i16]) = tone::loops::sines;
    fn correlate_dtmf(samples: &[i16; 40], out: &mut [f32; 16]) = dtmf::loops::correlate_dtmf;
    fn interpolate(filter: &resample::Filter, samples: &[i16], out: &mut [i16]) = resample::loops::interpolate;
    fn decimate(filter: &resample::Filter, samples: &[i16], out: &mut [i16]) = resample::loops::decimate;
    fn correlate_lags(pattern: &[i16; 80], region: &[i16], out: &mut [i32]) = stretch::loops::correlate_lags;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_supported_kernels_are_in_use() {
        let names: Vec<String> = supported().map(|kernels| format!("{kernels:?}")).collect();
        assert_eq!(names.first().map(String::as_str), Some(instruction_set()));
        assert_eq!(names.last().map(String::as_str), Some("baseline"));
    }
}
