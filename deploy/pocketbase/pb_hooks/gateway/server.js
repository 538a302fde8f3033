// Asks the gateway, from hooks of your own: require(`${__hooks}/gateway/server.js`).call("statuses", { users }).
// The methods: proto/server-api.md.

const config = require(`${__hooks}/gateway/config.js`).get();
const { base } = require(`${__hooks}/gateway/address.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);

/** What the gateway answers; throws where it does not, after delivery.timeoutSeconds at the latest. */
function call(method, question) {
  // Two equal requests of one second would have one signature, by which the second would count as a replay.
  const target = `/api/${method}?${$security.randomString(10)}`;
  const body = JSON.stringify(question);
  const headers = signed("POST", target, body);
  const response = $http.send({ method: "POST", url: base + target, headers, body, timeout: config.delivery.timeoutSeconds });
  if (response.statusCode === 200) return response.json;
  const { message } = (response.json && response.json.error) || {};
  throw new Error(`gateway: ${method}: ${message || `answered ${response.statusCode}`}`);
}

module.exports = { call };
