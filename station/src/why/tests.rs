//! Tests of the explanations.
