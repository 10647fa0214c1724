//! G.729 (8 kbit/s, annexes A and B) by a library that the operator installed and names: `libbcg729`.
//!
//! The library is under the GPL, so nothing of it is linked or shipped: [`load`] opens it while the program runs, and
//! what it has from then on holds for the whole process. It is C, and gets frames of the lengths that it expects, whose
//! bits are all meaningful to it; a fault in it is a fault of the process.
//!
//! A payload is any number of frames of 10 bytes, 10 ms each, and at its end may be a description of background noise
//! of 2 bytes, for 10 ms too (RFC 3551 section 4.5.6). Such descriptions are understood, but not sent.

#![allow(unsafe_code, reason = "a library in C, found at run time")]

use core::ffi::c_void;
use core::fmt;
use core::ptr::NonNull;
use std::path::Path;
use std::sync::OnceLock;

use libloading::Library;

use crate::codec::{CodecError, Decode, Encode};

/// Opens the library at `path`, and lets G.729 be decoded and encoded from then on. Runs code of that file.
///
/// # Errors
///
/// If there is no such library, if it is not the one it should be, or if one was loaded before.
pub fn load(path: &Path) -> Result<(), LoadError> {
    // SAFETY: opening a library runs its initializers. The operator vouches for the file by naming it.
    let library = unsafe { Library::new(path) }.map_err(|error| LoadError::Open(error.to_string()))?;
    let calls = Calls::find(library)?;
    LOADED.set(calls).map_err(|_| LoadError::Twice)
}

/// Whether G.729 can be decoded and encoded.
#[must_use]
pub fn is_loaded() -> bool {
    LOADED.get().is_some()
}

/// Why there is no G.729.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The file can't be opened as a library.
    Open(String),
    /// It lacks a function of libbcg729 1.0.2 or later.
    Symbol(&'static str),
    /// There is one already.
    Twice,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => {
                write!(f, "{error}: install libbcg729 (on Debian the package libbcg729-0), and name its file")
            }
            Self::Symbol(name) => {
                write!(f, "the library has no function {name}: it is not libbcg729, or older than 1.0.2")
            }
            Self::Twice => f.write_str("a library for G.729 was loaded before: one is all there can be"),
        }
    }
}

impl core::error::Error for LoadError {}

static LOADED: OnceLock<Calls> = OnceLock::new();

type Context = NonNull<c_void>;

/// The functions of the library, as its headers declare them.
struct Calls {
    new_decoder: unsafe extern "C" fn() -> *mut c_void,
    close_decoder: unsafe extern "C" fn(*mut c_void),
    /// Context, bits, their length, flags: erased, noise description, payload of RFC 3389; 80 samples.
    decode: unsafe extern "C" fn(*mut c_void, *const u8, u8, u8, u8, u8, *mut i16),
    /// Whether to describe background noise.
    new_encoder: unsafe extern "C" fn(u8) -> *mut c_void,
    close_encoder: unsafe extern "C" fn(*mut c_void),
    /// Context, 80 samples, 10 bytes, how many were written.
    encode: unsafe extern "C" fn(*mut c_void, *const i16, *mut u8, *mut u8),
    /// The code they are in, never to be closed.
    _library: Library,
}

impl Calls {
    fn find(library: Library) -> Result<Self, LoadError> {
        /// A function, which lives as long as the library.
        ///
        /// # Safety
        ///
        /// `F` is the type of the function of that name.
        unsafe fn function<F: Copy>(library: &Library, name: &'static str) -> Result<F, LoadError> {
            // SAFETY: by the contract of this function.
            unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| LoadError::Symbol(name))
        }
        // Came with the parameters of `bcg729Decoder` as they are above; before, it had fewer.
        // SAFETY: it is only looked for.
        unsafe { function::<unsafe extern "C" fn()>(&library, "bcg729GetRFC3389Payload") }?;
        // SAFETY: the types are those of bcg729/decoder.h.
        let new_decoder = unsafe { function(&library, "initBcg729DecoderChannel") }?;
        // SAFETY: as above.
        let close_decoder = unsafe { function(&library, "closeBcg729DecoderChannel") }?;
        // SAFETY: as above.
        let decode = unsafe { function(&library, "bcg729Decoder") }?;
        // SAFETY: the types are those of bcg729/encoder.h.
        let new_encoder = unsafe { function(&library, "initBcg729EncoderChannel") }?;
        // SAFETY: as above.
        let close_encoder = unsafe { function(&library, "closeBcg729EncoderChannel") }?;
        // SAFETY: as above.
        let encode = unsafe { function(&library, "bcg729Encoder") }?;
        Ok(Self { new_decoder, close_decoder, decode, new_encoder, close_encoder, encode, _library: library })
    }
}

/// Decodes a stream.
pub(crate) struct G729Decoder {
    calls: &'static Calls,
    context: Context,
}

// SAFETY: a context is a block of memory of its own, without ties to a thread.
unsafe impl Send for G729Decoder {}

impl G729Decoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        let calls = LOADED.get().ok_or(CodecError::Unavailable)?;
        // SAFETY: it takes nothing and allocates.
        let context = unsafe { (calls.new_decoder)() };
        Ok(Self { calls, context: NonNull::new(context).ok_or(CodecError::Failed)? })
    }

    /// One frame; without bits an erased one.
    fn frame(&mut self, bits: &[u8], out: &mut [i16; FRAME_SAMPLES]) {
        let mut padded = [0; FRAME_BYTES];
        padded[..bits.len()].copy_from_slice(bits);
        #[expect(clippy::cast_possible_truncation, reason = "10 at most")]
        let len = bits.len() as u8;
        let (is_erased, is_noise) = (u8::from(bits.is_empty()), u8::from(bits.len() == NOISE_BYTES));
        // SAFETY: the context is alive and nobody else's; there are 10 bytes to read and 80 samples to write.
        unsafe {
            (self.calls.decode)(self.context.as_ptr(), padded.as_ptr(), len, is_erased, is_noise, 0, out.as_mut_ptr());
        }
    }
}

impl Decode for G729Decoder {
    fn reset(&mut self) {
        if let Ok(new) = Self::new() {
            *self = new;
        }
    }

    fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        let frames = payload.len() / FRAME_BYTES;
        match payload.len() % FRAME_BYTES {
            0 => Ok(frames * FRAME_SAMPLES),
            NOISE_BYTES => Ok((frames + 1) * FRAME_SAMPLES),
            _ => Err(CodecError::Payload),
        }
    }

    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
        for (bits, out) in payload.chunks(FRAME_BYTES).zip(out.as_chunks_mut::<FRAME_SAMPLES>().0) {
            self.frame(bits, out);
        }
        Ok(())
    }

    fn conceal(&mut self, out: &mut [i16]) -> bool {
        let (frames, rest) = out.as_chunks_mut::<FRAME_SAMPLES>();
        if !rest.is_empty() {
            return false;
        }
        for out in frames {
            self.frame(&[], out);
        }
        true
    }
}

impl Drop for G729Decoder {
    fn drop(&mut self) {
        // SAFETY: the context came from `new_decoder`, and nobody has it any more.
        unsafe { (self.calls.close_decoder)(self.context.as_ptr()) }
    }
}

impl fmt::Debug for G729Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("G729Decoder")
    }
}

/// Encodes a stream, without descriptions of background noise.
pub(crate) struct G729Encoder {
    calls: &'static Calls,
    context: Context,
}

// SAFETY: a context is a block of memory of its own, without ties to a thread.
unsafe impl Send for G729Encoder {}

impl G729Encoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        let calls = LOADED.get().ok_or(CodecError::Unavailable)?;
        // SAFETY: it allocates, and takes nothing but a flag.
        let context = unsafe { (calls.new_encoder)(0) };
        Ok(Self { calls, context: NonNull::new(context).ok_or(CodecError::Failed)? })
    }
}

impl Encode for G729Encoder {
    fn reset(&mut self) {
        if let Ok(new) = Self::new() {
            *self = new;
        }
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        let (frames, rest) = samples.as_chunks::<FRAME_SAMPLES>();
        let bytes = frames.len() * FRAME_BYTES;
        let out = out.get_mut(..bytes).filter(|_| rest.is_empty()).ok_or(CodecError::Length)?;
        for (samples, out) in frames.iter().zip(out.as_chunks_mut::<FRAME_BYTES>().0) {
            let mut written = 0;
            // SAFETY: the context is alive and nobody else's; there are 80 samples to read and 10 bytes to write.
            unsafe {
                (self.calls.encode)(self.context.as_ptr(), samples.as_ptr(), out.as_mut_ptr(), &raw mut written);
            }
            if usize::from(written) != FRAME_BYTES {
                return Err(CodecError::Failed);
            }
        }
        Ok(bytes)
    }
}

impl Drop for G729Encoder {
    fn drop(&mut self) {
        // SAFETY: the context came from `new_encoder`, and nobody has it any more.
        unsafe { (self.calls.close_encoder)(self.context.as_ptr()) }
    }
}

impl fmt::Debug for G729Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("G729Encoder")
    }
}

const FRAME_BYTES: usize = 10;
const NOISE_BYTES: usize = 2;
/// 10 ms.
const FRAME_SAMPLES: usize = 80;
