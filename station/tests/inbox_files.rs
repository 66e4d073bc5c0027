//! The watched folder, with real files.
