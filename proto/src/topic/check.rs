//! Checks of the containers against naive models, for arbitrary bytes.
