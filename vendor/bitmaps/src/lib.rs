//! Empty on purpose.
//!
//! glommio 0.9.0 lists the crate `bitmaps` (MPL-2.0) among its dependencies but uses nothing of it. This stand-in keeps
//! a licence out of the binary that the project does not link. The build breaks here, not silently, should a glommio
//! that uses it ever be taken.
