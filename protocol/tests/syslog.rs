//! Syslog: messages and frames, against vectors, against laws, against other readers of the same bytes.

#![expect(clippy::unwrap_used, reason = "a test that ends here says where")]

mod framing;
mod laws;
mod oracle;
mod peers;
mod vectors;
