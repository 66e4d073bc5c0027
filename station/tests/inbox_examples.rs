//! The example files: every one is read, and the one that is wrong on purpose is refused.
