//! All codes that clients can see. `proto/README.md` holds the same table for people, and a test compares the two.
//!
//! Most numbers are defined by the protocol and keep their meaning. The gateway's own are errors from 400 on,
//! unsubscribes from 2100 to 2199 (the client does not subscribe again), and disconnects from 4000 to 4499 (the client
//! reconnects) and from 4500 to 4999 (the client does not).

/// Error reply to a command; the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    pub code: u16,
    pub message: &'static str,
    /// Whether the same command may succeed later; SDKs then retry by themselves.
    pub temporary: bool,
}

/// Ends a subscription from the server's side. From 2500 on, SDKs subscribe again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeCode {
    pub code: u16,
    pub reason: &'static str,
}

/// Ends the connection: the close code of the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u16,
    pub reason: &'static str,
}

impl Disconnect {
    /// Whether SDKs reconnect by themselves.
    pub fn reconnects(self) -> bool {
        !matches!(self.code, 1009 | 3500..=3999 | 4500..=4999)
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $all:ident: $kind:ident { $($(#[$note:meta])* $name:ident = $($field:ident $value:expr),+;)+ }) => {
        $($(#[$note])* pub const $name: $kind = $kind { $($field: $value),+ };)+
        $(#[$doc])*
        pub const $all: &[$kind] = &[$($name),+];
    };
}

table! {
    /// All errors.
    ERRORS: ErrorCode {
        /// A dependency of the gateway failed (PocketBase or Redis unreachable).
        INTERNAL = code 100, message "internal server error", temporary true;
        /// `connect` without a token, while guests are not allowed.
        UNAUTHORIZED = code 101, message "unauthorized", temporary false;
        /// No such kind of channel is configured.
        UNKNOWN_CHANNEL = code 102, message "unknown channel", temporary false;
        /// Forbidden by PocketBase's rules, or by the rules of the channel.
        PERMISSION_DENIED = code 103, message "permission denied", temporary false;
        /// No such rpc method.
        METHOD_NOT_FOUND = code 104, message "method not found", temporary false;
        ALREADY_SUBSCRIBED = code 105, message "already subscribed", temporary false;
        /// Too large, or too many subscriptions.
        LIMIT_EXCEEDED = code 106, message "limit exceeded", temporary false;
        /// Well-formed, but not valid for the command.
        BAD_REQUEST = code 107, message "bad request", temporary false;
        /// The feature is not offered.
        NOT_AVAILABLE = code 108, message "not available", temporary false;
        /// The client should fetch a new token and retry; SDKs do.
        TOKEN_EXPIRED = code 109, message "token expired", temporary false;
        /// Commands or signals exceed the rate limits; a later retry succeeds.
        TOO_MANY_REQUESTS = code 111, message "too many requests", temporary true;
        /// The history no longer reaches back to the requested position.
        UNRECOVERABLE_POSITION = code 112, message "unrecoverable position", temporary false;
        /// The user may read but not publish, until `muted_until`.
        MUTED = code 400, message "muted", temporary false;
    }
}

table! {
    /// All ways in which the gateway ends a subscription.
    UNSUBSCRIBES: UnsubscribeCode {
        /// A record that gave this user access, such as a membership, was deleted or changed.
        REMOVED = code 2100, reason "removed from the channel";
        /// The guarded record changed, and the user may no longer view the record, as when a room becomes private.
        CLOSED = code 2101, reason "channel closed to this user";
        /// The guarded record was deleted.
        DELETED = code 2102, reason "channel deleted";
        /// An admin changed the rules of a collection.
        RULES_CHANGED = code 2103, reason "rules changed";
        /// Access ended for another reason: the user's own record, a related record, or time.
        ACCESS_ENDED = code 2104, reason "access ended";
        /// Requested by a back end.
        BY_SERVER = code 2105, reason "unsubscribed by the server";
        /// The node missed publications of the channel, and history could not fill the gap. The client subscribes
        /// again and learns whether recovery was possible.
        INSUFFICIENT_STATE = code 2500, reason "insufficient state";
    }
}

table! {
    /// All ways in which the gateway ends a connection.
    DISCONNECTS: Disconnect {
        /// A frame above the size limit; SDKs do not reconnect.
        FRAME_TOO_BIG = code 1009, reason "message size limit exceeded";
        /// This node stops; another node takes over.
        SHUTDOWN = code 3001, reason "shutdown";
        /// No fresh token came within the grace period, or a `refresh` brought an expired token.
        EXPIRED = code 3005, reason "connection expired";
        /// The client reads too slowly: its queue of unsent bytes is full.
        SLOW = code 3008, reason "slow";
        /// Pings went unanswered.
        NO_PONG = code 3012, reason "no pong";
        /// Commands continued although many were refused with error 111.
        FLOOD = code 3013, reason "too many requests";
        /// The token is forged, foreign, of another type, or no longer valid.
        INVALID_TOKEN = code 3500, reason "invalid token";
        /// A frame that does not follow this protocol.
        BAD_REQUEST_FRAME = code 3501, reason "bad request";
        /// No `connect` arrived in time.
        STALE = code 3502, reason "stale";
        /// The user has the maximum number of connections.
        CONNECTION_LIMIT = code 3504, reason "connection limit";
        /// Access ended after a reply that could not be taken back. After reconnecting, the client gets what it may
        /// see now.
        ACCESS_CHANGED = code 4000, reason "access changed";
        /// Requested by a back end, or the account has another key; the client may reconnect.
        RECONNECT = code 4001, reason "reconnect";
        /// `max_guests_per_ip` guests are connected from this address; a retry may succeed later.
        GUEST_LIMIT = code 4002, reason "guest limit";
        /// More than `max_unauthenticated` connections had not sent their token, and this connection was the oldest.
        DISPLACED = code 4003, reason "displaced";
        /// The user was deleted.
        USER_DELETED = code 4500, reason "user deleted";
        /// The user is banned, until `banned_until`.
        BANNED = code 4501, reason "banned";
        /// The user's tokens were invalidated: a new password, or a log-out everywhere.
        TOKEN_REVOKED = code 4502, reason "token revoked";
        /// The auth collection's token secret changed, which invalidates all tokens of the collection.
        ALL_TOKENS_REVOKED = code 4503, reason "all tokens revoked";
        /// Requested by a back end.
        DISCONNECTED = code 4504, reason "disconnected by the server";
        /// The hooks' config no longer allows guests.
        GUESTS_NOT_ALLOWED = code 4505, reason "guests not allowed";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows `| number | text |…` of the tables in `proto/README.md`.
    fn documented() -> Vec<(u16, String)> {
        include_str!("../../proto/README.md")
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
                Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
            })
            .collect()
    }

    #[test]
    fn the_protocol_document_lists_exactly_these_codes() {
        let mut coded: Vec<(u16, String)> = Vec::new();
        coded.extend(ERRORS.iter().map(|c| (c.code, c.message.to_owned())));
        coded.extend(UNSUBSCRIBES.iter().map(|c| (c.code, c.reason.to_owned())));
        coded.extend(DISCONNECTS.iter().map(|c| (c.code, c.reason.to_owned())));
        assert_eq!(documented(), coded);
    }

    #[test]
    fn clients_come_back_exactly_where_coming_back_can_help() {
        let staying_away: Vec<u16> = DISCONNECTS.iter().filter(|d| !d.reconnects()).map(|d| d.code).collect();
        assert_eq!(staying_away, [1009, 3500, 3501, 3502, 3504, 4500, 4501, 4502, 4503, 4504, 4505]);
    }
}
