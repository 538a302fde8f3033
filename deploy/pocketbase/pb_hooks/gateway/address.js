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

module.exports = { bases, inTurn, remember, shown: masked(bases.join(", ")), masked };
