// Version of the hooks, equal to the gateway's. The gateway compares the two and names the older side.

module.exports = "0.1.0";
