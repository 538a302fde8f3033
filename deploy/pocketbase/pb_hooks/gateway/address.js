// Addresses of the gateways: GATEWAY_URL, a list of URLs with commas in between.

/** URLs without trailing slashes. */
const bases = ($os.getenv("GATEWAY_URL") || "http://127.0.0.1:8000")
  .split(",")
  .map((url) => url.trim().replace(/\/+$/, ""))
  .filter(Boolean);

/** Key in the app's store: index of the address with the last successful request. */
const CURRENT = "gateway.delivery.address";

/** A text without user names and passwords of URLs. */
function masked(text) {
  return text.replace(/\/\/[^/\s"]*@/g, "//");
}

/** All addresses, beginning with the address of the last successful request. */
function inTurn(app) {
  if (bases.length === 1) return bases;
  const first = app.store().get(CURRENT) || 0;
  return [...bases.slice(first), ...bases.slice(0, first)];
}

/** Notes an address after a successful request. */
function remember(app, base) {
  if (bases.length > 1) app.store().set(CURRENT, bases.indexOf(base));
}

/** The reason in an answer that is no success, in one line. */
function refusal({ statusCode, json }) {
  const { message } = (json && json.error) || {};
  if (message) return `the gateway answered ${statusCode}: ${message}`;
  // PocketBase's own errors look like {"data":{},"message":"…","status":404}.
  if (json && json.status === statusCode && typeof json.message === "string") {
    return `this address answers like PocketBase and not like the gateway (${statusCode}); set GATEWAY_URL to the gateway's address`;
  }
  return `the gateway answered ${statusCode}`;
}

module.exports = { bases, inTurn, refusal, remember, shown: masked(bases.join(", ")), masked };
