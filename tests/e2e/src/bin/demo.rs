//! Shows a majority vote over a year of weather reports.
fn main() {}
