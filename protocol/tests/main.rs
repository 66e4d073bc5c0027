//! Integration tests of the vocabulary: the bytes of the wire, and the laws its types obey.

mod laws;
mod wire;
