//! Syslog: messages and frames, against vectors, against laws, against other readers of the same bytes.

mod framing;
mod laws;
mod oracle;
mod peers;
mod vectors;
