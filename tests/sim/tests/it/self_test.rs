//! The checker finds every kind of seeded defect, and nothing in what is right.
