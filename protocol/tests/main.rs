//! Integration tests of the vocabulary: its figures and words, the bytes of the wire, the laws its types obey.

mod facts;
mod fuzz;
mod laws;
mod logs;
mod syslog;
mod transfer;
mod wire;
