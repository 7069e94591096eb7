//! How the programs take options.
