// The address at which PocketBase reaches the gateway: GATEWAY_URL.

/** Without a trailing slash. */
const base = ($os.getenv("GATEWAY_URL") || "http://127.0.0.1:8000").replace(/\/+$/, "");

/** A text without the user name and password of any URL in it. */
function masked(text) {
  return text.replace(/\/\/[^/\s"]*@/g, "//");
}

module.exports = { base, shown: masked(base), masked };
