// The addresses at which PocketBase reaches gateways: GATEWAY_URL, one URL or several with commas between them.

/** Without trailing slashes; at least one. */
const bases = ($os.getenv("GATEWAY_URL") || "http://127.0.0.1:8000")
  .split(",")
  .map((url) => url.trim().replace(/\/+$/, ""))
  .filter(Boolean);

/** Key in the app's store: the place of the address that took the last request. */
const CURRENT = "gateway.delivery.address";

/** A text without the user name and password of any URL in it. */
function masked(text) {
  return text.replace(/\/\/[^/\s"]*@/g, "//");
}

/** All addresses, beginning with the one that took the last request. */
function inTurn(app) {
  if (bases.length === 1) return bases;
  const first = app.store().get(CURRENT) || 0;
  return [...bases.slice(first), ...bases.slice(0, first)];
}

/** This address has taken a request. */
function remember(app, base) {
  if (bases.length > 1) app.store().set(CURRENT, bases.indexOf(base));
}

module.exports = { bases, inTurn, remember, shown: masked(bases.join(", ")), masked };
