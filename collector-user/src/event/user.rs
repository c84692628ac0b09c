//! Users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Text;

/// A user who was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserRecord {
    /// The user's id. Empty when the record is handed to a collector, which fills it in before it returns
    /// ([`hash::stats_user_hash`](super::hash::stats_user_hash)).
    pub id: Text,
    /// The namespace in which the user was seen.
    pub namespace: Text,
    /// What is known of the user, `key=value` each. Of those behind sockets: `uid`, the id as the host has it; `user`, the name
    /// in the host's user database, or the id; `unit`, the processing unit whose flow it is.
    pub claims: Vec<Text>,
}
