//! Contract.
#![no_std]
