//! From what the programs counted to records: flows over their life, the users behind them, counters between two reports,
//! single packets. Nothing here reads a clock or a descriptor.

pub mod booking;
pub mod counters;
pub mod drops;
pub mod flow;
pub mod flows;
pub mod initiator;
pub mod lives;
pub mod packets;
pub mod record;
pub mod users;
mod waiting;
