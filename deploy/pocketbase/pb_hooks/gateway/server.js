// Asks the gateway, from hooks of your own: require(`${__hooks}/gateway/server.js`).call("statuses", { users }).
// The methods: proto/server-api.md.

const config = require(`${__hooks}/gateway/config.js`).get();
const address = require(`${__hooks}/gateway/address.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);

/**
 * The gateway's answer. Throws where no gateway answers, after delivery.timeoutSeconds at the latest. A gateway of
 * GATEWAY_URL that cannot be reached, or stops, is passed over; one that takes the request and does not answer is not, since it
 * may have carried the request out.
 */
function call(method, question) {
  const body = JSON.stringify(question);
  let problem;
  for (const base of address.inTurn($app)) {
    let response;
    try {
      response = ask(base, method, body);
    } catch (err) {
      problem = err;
      if (isUnreached(err)) continue;
      throw err;
    }
    if (response.statusCode === 200) return response.json;
    const { code, message } = (response.json && response.json.error) || {};
    problem = new Error(`gateway: ${method}: ${message || `answered ${response.statusCode}`}`);
    if (code !== "draining") throw problem;
  }
  throw problem;
}

function ask(base, method, body) {
  // Two equal requests of one second would have one signature, by which the second would count as a replay.
  const target = `/api/${method}?${$security.randomString(10)}`;
  const headers = signed("POST", target, body);
  return $http.send({ method: "POST", url: base + target, headers, body, timeout: config.delivery.timeoutSeconds });
}

/** Whether no connection was made. */
function isUnreached(err) {
  return /\bdial\b/.test(String(err));
}

module.exports = { call };
