//! Members of channels, and users' statuses: leases in the broker, renewed by this node while the connections live.
//!
//! [`presence`] shows this node's clients in their channels. [`user_status`] makes the users online, through [`leases`]
//! of the connections, and serves commands about statuses. [`renewal`] spreads renewals evenly over time.

mod leases;
pub mod presence;
mod renewal;
pub(crate) mod user_status;
