//! Commands that misbehave, seen from the station.
