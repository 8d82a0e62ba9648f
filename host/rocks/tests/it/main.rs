//! The store adapter on real directories: the engine's store contract, and what only a disk can show: crashes, locks,
//! foreign directories, damaged files, a full disk.

mod contract;
mod corruption;
mod crash;
mod damage;
mod directory;
mod folder;
mod memory;
mod rates;
mod views;
