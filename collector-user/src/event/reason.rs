//! The string constants of records, with the exact values of trireme-lib.

// What became of a flow, or why it was dropped.

/// A flow was rejected.
pub const FLOW_REJECT: &str = "reject";

/// A flow was accepted.
pub const FLOW_ACCEPT: &str = "accept";

/// The token was missing.
pub const MISSING_TOKEN: &str = "missingtoken";

/// The token was invalid.
pub const INVALID_TOKEN: &str = "token";

/// The packet's metadata were not correct.
pub const INVALID_FORMAT: &str = "format";

/// The header was missing or bad.
pub const INVALID_HEADER: &str = "header";

/// The payload was missing or bad.
pub const INVALID_PAYLOAD: &str = "payload";

/// The metadata held no context.
pub const INVALID_CONTEXT: &str = "context";

/// There was no connection to belong to.
pub const INVALID_CONNECTION: &str = "connection";

/// The packet did not fit its connection's state.
pub const INVALID_STATE: &str = "state";

/// The nonce was wrong; the spelling is the original's.
pub const INVALID_NONSE: &str = "nonse";

/// A policy said so.
pub const POLICY_DROP: &str = "policy";

/// The request failed the validation of an API.
pub const API_POLICY_DROP: &str = "api";

/// A proxy could not open the connection onwards.
pub const UNABLE_TO_DIAL: &str = "dial";

/// The two ends compress tags in different versions.
pub const COMPRESSED_TAG_MISMATCH: &str = "compressedtagmismatch";

/// The two ends disagree on encryption.
pub const ENCRYPTION_MISMATCH: &str = "encryptionmismatch";

/// The two ends run different versions of the datapath.
pub const DATAPATH_VERSION_MISMATCH: &str = "datapathversionmismatch";

/// A single packet was dropped, for a reason that has no word of its own.
pub const PACKET_DROP: &str = "packetdrop";

// What happened to a container.

/// It was started.
pub const CONTAINER_START: &str = "start";

/// It was stopped.
pub const CONTAINER_STOP: &str = "stop";

/// It was created.
pub const CONTAINER_CREATE: &str = "create";

/// It was deleted.
pub const CONTAINER_DELETE: &str = "delete";

/// Its policy was updated.
pub const CONTAINER_UPDATE: &str = "update";

/// It was stopped because of a policy.
pub const CONTAINER_FAILED: &str = "forcestop";

/// It is left alone.
pub const CONTAINER_IGNORED: &str = "ignore";

/// The policy of an unknown container was deleted.
pub const CONTAINER_DELETE_UNKNOWN: &str = "unknowncontainer";

// Further words.

/// A flow was accepted as a matter of course.
pub const POLICY_VALID: &str = "V";

/// The id of an end that belongs to nobody known, and of the policy that holds where no rule does.
pub const DEFAULT_END_POINT: &str = "default";

/// The source of a flow that is known by claims only.
pub const SOME_CLAIMS_SOURCE: &str = "some-claims";

#[cfg(test)]
mod tests {
    #[test]
    fn all_are_there_and_distinct() {
        let all = [
            super::FLOW_REJECT,
            super::FLOW_ACCEPT,
            super::MISSING_TOKEN,
            super::INVALID_TOKEN,
            super::INVALID_FORMAT,
            super::INVALID_HEADER,
            super::INVALID_PAYLOAD,
            super::INVALID_CONTEXT,
            super::INVALID_CONNECTION,
            super::INVALID_STATE,
            super::INVALID_NONSE,
            super::POLICY_DROP,
            super::API_POLICY_DROP,
            super::UNABLE_TO_DIAL,
            super::COMPRESSED_TAG_MISMATCH,
            super::ENCRYPTION_MISMATCH,
            super::DATAPATH_VERSION_MISMATCH,
            super::PACKET_DROP,
            super::CONTAINER_START,
            super::CONTAINER_STOP,
            super::CONTAINER_CREATE,
            super::CONTAINER_DELETE,
            super::CONTAINER_UPDATE,
            super::CONTAINER_FAILED,
            super::CONTAINER_IGNORED,
            super::CONTAINER_DELETE_UNKNOWN,
            super::POLICY_VALID,
            super::DEFAULT_END_POINT,
            super::SOME_CLAIMS_SOURCE,
        ];
        let seed = "reject accept missingtoken token format header payload context connection state nonse policy api \
                    dial compressedtagmismatch encryptionmismatch datapathversionmismatch packetdrop start stop \
                    create delete update forcestop ignore unknowncontainer V default some-claims";
        assert_eq!(all.join(" "), seed.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(all.len(), 29);
    }
}
