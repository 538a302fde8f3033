// Signatures of requests between the hooks and the gateway, in both directions (secrets: see secrets.js).
//
//   X-Gateway-Timestamp: Unix seconds
//   X-Gateway-Signature: hex HMAC-SHA256 of TIMESTAMP \n METHOD \n TARGET \n BODY
//
// TARGET is the path with its query, so a captured request cannot be turned into another one.

const secrets = require(`${__hooks}/gateway/secrets.js`);

const MAX_SKEW_SECONDS = 300;

function signature(secret, timestamp, method, target, body) {
  return $security.hs256(`${timestamp}\n${method}\n${target}\n${body}`, secret);
}

/** The headers of a request to the gateway. */
function signed(method, target, body) {
  const timestamp = String(Math.floor(Date.now() / 1000));
  return {
    "Content-Type": "application/json",
    "X-Gateway-Timestamp": timestamp,
    "X-Gateway-Signature": signature(secrets.signing(), timestamp, method, target, body),
  };
}

/** Why the signature of a received request is refused, as {code, message}; null for a valid signature. */
function problem(request, body) {
  const timestamp = request.header.get("X-Gateway-Timestamp");
  const given = request.header.get("X-Gateway-Signature");
  if (!timestamp || !given) {
    return {
      code: "missing_signature",
      message: "This route is for the gateway: X-Gateway-Timestamp and X-Gateway-Signature are needed.",
    };
  }

  const signedWith = (secret) =>
    $security.equal(given, signature(secret, timestamp, request.method, request.requestURI, body));
  if (!secrets.accepted().some(signedWith)) {
    return {
      code: "bad_signature",
      message: "The signature does not match. Give PocketBase and the gateway the same GATEWAY_SECRET.",
    };
  }

  // Checked after the signature, so that only holders of the secret learn about the clock.
  const skew = Math.abs(Date.now() / 1000 - Number(timestamp));
  if (!(skew <= MAX_SKEW_SECONDS)) {
    return {
      code: "stale_timestamp",
      message: `The timestamp is more than ${MAX_SKEW_SECONDS} seconds off. Synchronise both machines' clocks.`,
    };
  }
  return null;
}

module.exports = { signed, problem };
