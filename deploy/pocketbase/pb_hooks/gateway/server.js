// Client of the gateway's server API, for your own hooks:
//
//   const { statuses } = require(`${__hooks}/gateway/server.js`).call("statuses", { users });
//
// proto/server-api.md lists the methods.

const config = require(`${__hooks}/gateway/config.js`);
const address = require(`${__hooks}/gateway/address.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);

/**
 * The gateway's answer. Throws if no gateway answers; each request takes at most delivery.timeoutSeconds. If a gateway
 * cannot be reached or is stopping, the next address of GATEWAY_URL is tried. If a gateway has taken the request but
 * does not answer, the call fails, since the gateway may have carried out the request.
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
    problem = new Error(`gateway: ${method}: ${message || address.refusal(response)}`);
    if (code !== "draining") throw problem;
  }
  throw problem;
}

function ask(base, method, body) {
  // A random query: two equal requests in one second would have the same signature, and the second would be refused as
  // a replay.
  const target = `/api/${method}?${$security.randomString(10)}`;
  const headers = signed("POST", target, body);
  return $http.send({
    method: "POST",
    url: base + target,
    headers,
    body,
    timeout: config.get().delivery.timeoutSeconds,
  });
}

/** Whether the connection failed, so that the gateway has not received the request. */
function isUnreached(err) {
  return /\bdial\b/.test(String(err));
}

module.exports = { call };
