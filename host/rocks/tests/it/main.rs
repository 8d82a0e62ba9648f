//! The store adapter on real directories.
