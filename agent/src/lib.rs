//! The agent: runs orders under supervision and answers with what happened.
